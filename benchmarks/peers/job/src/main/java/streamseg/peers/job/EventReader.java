package streamseg.peers.job;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.IOException;
import java.math.BigDecimal;
import java.time.Instant;

/** Reads events from their JSON. */
public final class EventReader {
    private static final ObjectReader READER = new ObjectMapper().readerFor(Wire.class);

    @JsonIgnoreProperties(ignoreUnknown = true)
    record Wire(
            @JsonProperty("id") String id,
            @JsonProperty("type") String type,
            @JsonProperty("customer_id") String customer,
            @JsonProperty("time") String time,
            @JsonProperty("amount") String amount) {}

    private EventReader() {}

    public static Event read(byte[] json) throws IOException {
        Wire wire = READER.readValue(json);
        Event event = new Event();
        event.id = wire.id;
        event.type = wire.type;
        event.customer = wire.customer;
        event.time = Instant.parse(wire.time).toEpochMilli();
        event.amount = wire.amount == null ? 0 : new BigDecimal(wire.amount).movePointRight(2).longValueExact();
        return event;
    }
}
