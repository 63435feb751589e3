package streamseg.peers.job;

import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.time.Instant;
import java.time.format.DateTimeFormatter;
import java.time.format.DateTimeFormatterBuilder;

/** A customer has come to another segment. */
public record Change(
        @JsonProperty("customer_id") String customer,
        @JsonProperty("scheme") String scheme,
        @JsonProperty("from") String from,
        @JsonProperty("to") String to,
        @JsonProperty("version") int version,
        @JsonProperty("time") String time,
        @JsonProperty("cause") String cause,
        @JsonProperty("values") Values values) {
    private static final ObjectWriter WRITER = new ObjectMapper().writerFor(Change.class);
    /** With milliseconds, be they zero. */
    private static final DateTimeFormatter TIME = new DateTimeFormatterBuilder().appendInstant(3).toFormatter();

    /** Applies an event to its customer; returns the change that it makes, or null. */
    public static Change apply(Profile profile, Event event) {
        profile.add(event);
        Values values = Values.at(profile, event.time);
        int segment = Segments.of(values);
        if (segment == profile.segment) {
            return null;
        }
        String from = profile.segment < 0 ? null : Segments.NAMES[profile.segment];
        profile.segment = segment;
        profile.version++;
        String time = TIME.format(Instant.ofEpochMilli(event.time));
        return new Change(
                event.customer, "value", from, Segments.NAMES[segment], profile.version, time, event.id, values);
    }

    public byte[] toJson() {
        try {
            return WRITER.writeValueAsBytes(this);
        } catch (JsonProcessingException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
