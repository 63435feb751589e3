package streamseg.peers.job;

/** The rules of benchmarks/job.yaml. */
public final class Segments {
    public static final String[] NAMES = {"champions", "loyal", "promising", "interested", "lapsing", "visitors"};

    private static final long DAY = 86_400_000L;
    private static final long[] RECENCY = {7 * DAY, 30 * DAY, 60 * DAY, 90 * DAY};
    private static final long[] FREQUENCY = {1, 2, 3, 5};
    private static final long[] MONETARY = {20_00, 40_00, 75_00, 150_00};

    private Segments() {}

    /** The index of the first segment from the top that the values are in. */
    public static int of(Values values) {
        boolean bought = values.recency >= 0;
        int r = 6 - score(values.recency, RECENCY);
        int f = score(values.orders90, FREQUENCY);
        int m = score(values.spend90, MONETARY);
        if (bought && r >= 4 && f >= 4 && m >= 4) {
            return 0;
        }
        if (bought && r >= 3 && f >= 3 && values.spend30 >= 40_00) {
            return 1;
        }
        if (values.orders7 >= 1 && values.spend7 >= 50_00 || values.orders30 >= 2) {
            return 2;
        }
        if (values.views7 >= 4 || values.carts7 >= 1 || values.opens30 >= 2) {
            return 3;
        }
        return bought && r <= 4 ? 4 : 5;
    }

    /** 1 up to the first cut, 5 above the last. */
    private static int score(long value, long[] cuts) {
        int score = 1;
        for (long cut : cuts) {
            if (value > cut) {
                score++;
            }
        }
        return score;
    }
}
