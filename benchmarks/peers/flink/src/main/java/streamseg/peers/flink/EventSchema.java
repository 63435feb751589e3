package streamseg.peers.flink;

import java.io.IOException;
import org.apache.flink.api.common.serialization.AbstractDeserializationSchema;
import streamseg.peers.job.Event;
import streamseg.peers.job.EventReader;

/** Reads events as they come from Kafka. */
final class EventSchema extends AbstractDeserializationSchema<Event> {
    private static final long serialVersionUID = 1;

    @Override
    public Event deserialize(byte[] json) throws IOException {
        return EventReader.read(json);
    }
}
