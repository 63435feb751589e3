package streamseg.peers.flink;

import java.nio.file.Path;
import java.time.Duration;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import streamseg.peers.job.Change;
import streamseg.peers.job.Event;

/** KAFKA EVENTS CHANGES GROUP FOLDER COMMIT_MS. State on the heap, a checkpoint every COMMIT_MS. */
public final class Main {
    private Main() {}

    public static void main(String[] args) throws Exception {
        StreamExecutionEnvironment environment = StreamExecutionEnvironment.createLocalEnvironment(1, settings(args));
        environment.getConfig().enableObjectReuse();
        environment
                .fromSource(source(args), WatermarkStrategy.noWatermarks(), "events")
                .keyBy(event -> event.customer)
                .process(new Segmenter())
                .sinkTo(sink(args));
        environment.execute(args[3]);
    }

    private static Configuration settings(String[] args) {
        Configuration settings = new Configuration();
        settings.set(CheckpointingOptions.CHECKPOINTING_INTERVAL, Duration.ofMillis(Long.parseLong(args[5])));
        settings.set(CheckpointingOptions.CHECKPOINT_STORAGE, "filesystem");
        settings.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, Path.of(args[4]).toUri().toString());
        return settings;
    }

    private static KafkaSource<Event> source(String[] args) {
        return KafkaSource.<Event>builder()
                .setBootstrapServers(args[0])
                .setTopics(args[1])
                .setGroupId(args[3])
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setValueOnlyDeserializer(new EventSchema())
                .setProperty("max.poll.records", "5000")
                .build();
    }

    private static KafkaSink<Change> sink(String[] args) {
        return KafkaSink.<Change>builder()
                .setBootstrapServers(args[0])
                .setDeliveryGuarantee(DeliveryGuarantee.AT_LEAST_ONCE)
                .setRecordSerializer(new ChangeSchema(args[2]))
                .setProperty("linger.ms", "20")
                .setProperty("batch.size", "262144")
                .build();
    }
}
