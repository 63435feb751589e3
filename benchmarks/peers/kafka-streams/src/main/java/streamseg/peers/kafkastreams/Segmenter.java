package streamseg.peers.kafkastreams;

import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import streamseg.peers.job.Change;
import streamseg.peers.job.Event;
import streamseg.peers.job.Profile;

/** Events in, changes out; profiles in a store. */
final class Segmenter implements Processor<String, Event, String, byte[]> {
    static final String STORE = "profiles";

    private ProcessorContext<String, byte[]> context;
    private KeyValueStore<String, Profile> profiles;

    @Override
    public void init(ProcessorContext<String, byte[]> context) {
        this.context = context;
        profiles = context.getStateStore(STORE);
    }

    @Override
    public void process(Record<String, Event> record) {
        Profile profile = profiles.get(record.key());
        if (profile == null) {
            profile = new Profile();
        }
        Change change = Change.apply(profile, record.value());
        profiles.put(record.key(), profile);
        if (change != null) {
            context.forward(record.withValue(change.toJson()));
        }
    }
}
