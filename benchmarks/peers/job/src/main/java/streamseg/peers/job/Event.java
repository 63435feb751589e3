package streamseg.peers.job;

/** An event of a customer. Mutable and public, as serializers like it. */
public class Event {
    public String id;
    public String type;
    public String customer;
    /** Milliseconds since 1970. */
    public long time;
    /** Cents; 0 for all but purchases. */
    public long amount;
}
