package streamseg.peers.kafkastreams;

import java.nio.ByteBuffer;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serializer;
import streamseg.peers.job.Profile;

/** A compact binary form of profiles: no reflection, no names. */
final class ProfileSerde implements Serde<Profile> {
    private static final int HEAD = 4 + 4 + 4 + 8;
    private static final int ROW = 4 + 2 + 8 + 2 + 2 + 2;

    @Override
    public Serializer<Profile> serializer() {
        return (topic, profile) -> profile == null ? null : write(profile);
    }

    @Override
    public Deserializer<Profile> deserializer() {
        return (topic, bytes) -> bytes == null ? null : read(ByteBuffer.wrap(bytes));
    }

    private static byte[] write(Profile profile) {
        ByteBuffer buffer = ByteBuffer.allocate(HEAD + ROW * profile.size);
        buffer.putInt(profile.size);
        buffer.putInt(profile.segment);
        buffer.putInt(profile.version);
        buffer.putLong(profile.lastPurchase);
        for (int row = 0; row < profile.size; row++) {
            buffer.putInt(profile.hours[row]);
            buffer.putShort((short) profile.orders[row]);
            buffer.putLong(profile.spend[row]);
            buffer.putShort((short) profile.views[row]);
            buffer.putShort((short) profile.opens[row]);
            buffer.putShort((short) profile.carts[row]);
        }
        return buffer.array();
    }

    private static Profile read(ByteBuffer buffer) {
        Profile profile = new Profile();
        profile.size = buffer.getInt();
        profile.segment = buffer.getInt();
        profile.version = buffer.getInt();
        profile.lastPurchase = buffer.getLong();
        profile.grow(profile.size + 1); // an event may need one more
        for (int row = 0; row < profile.size; row++) {
            profile.hours[row] = buffer.getInt();
            profile.orders[row] = buffer.getShort();
            profile.spend[row] = buffer.getLong();
            profile.views[row] = buffer.getShort();
            profile.opens[row] = buffer.getShort();
            profile.carts[row] = buffer.getShort();
        }
        return profile;
    }
}
