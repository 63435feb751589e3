package streamseg.peers.flink;

import java.nio.charset.StandardCharsets;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.kafka.clients.producer.ProducerRecord;
import streamseg.peers.job.Change;

/** Writes changes as they go to Kafka, those of a customer into one partition. */
record ChangeSchema(String topic) implements KafkaRecordSerializationSchema<Change> {
    private static final long serialVersionUID = 1;

    @Override
    public ProducerRecord<byte[], byte[]> serialize(Change change, KafkaSinkContext context, Long timestamp) {
        return new ProducerRecord<>(topic, change.customer().getBytes(StandardCharsets.UTF_8), change.toJson());
    }
}
