package streamseg.peers.kafkastreams;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.state.KeyValueBytesStoreSupplier;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;
import streamseg.peers.job.Event;
import streamseg.peers.job.EventReader;
import streamseg.peers.job.Profile;

/** KAFKA EVENTS CHANGES GROUP FOLDER COMMIT_MS, then any of: rocksdb, cached. */
public final class Main {
    private static final long CACHE_BYTES = 64 << 20;

    private Main() {}

    public static void main(String[] args) {
        List<String> options = List.of(args).subList(6, args.length);
        boolean cached = options.contains("cached");
        Topology topology = topology(args[1], args[2], options.contains("rocksdb"), cached);
        KafkaStreams streams = new KafkaStreams(topology, settings(args, cached));
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }

    private static Topology topology(String events, String changes, boolean rocksdb, boolean cached) {
        KeyValueBytesStoreSupplier supplier = rocksdb
                ? Stores.persistentKeyValueStore(Segmenter.STORE)
                : Stores.inMemoryKeyValueStore(Segmenter.STORE);
        StoreBuilder<KeyValueStore<String, Profile>> store =
                Stores.keyValueStoreBuilder(supplier, Serdes.String(), new ProfileSerde());
        return new Topology()
                .addSource("events", new StringDeserializer(), reader(), events)
                .addProcessor("segmenter", Segmenter::new, "events")
                .addStateStore(cached ? store.withCachingEnabled() : store.withCachingDisabled(), "segmenter")
                .addSink("changes", changes, new StringSerializer(), new ByteArraySerializer(), "segmenter");
    }

    private static Deserializer<Event> reader() {
        return (topic, json) -> {
            try {
                return EventReader.read(json);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        };
    }

    private static Properties settings(String[] args, boolean cached) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, args[3]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, args[4]);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, args[5]);
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, cached ? CACHE_BYTES : 0);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 5_000);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 20);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 << 10);
        return settings;
    }
}
