package streamseg.peers.job;

import com.fasterxml.jackson.annotation.JsonProperty;

/** The features of a customer at an instant. Money is cents. */
public final class Values {
    @JsonProperty("orders_7d") public int orders7;
    @JsonProperty("orders_30d") public int orders30;
    @JsonProperty("orders_90d") public int orders90;
    @JsonProperty("spend_7d") public long spend7;
    @JsonProperty("spend_30d") public long spend30;
    @JsonProperty("spend_90d") public long spend90;
    @JsonProperty("views_7d") public int views7;
    @JsonProperty("opens_30d") public int opens30;
    @JsonProperty("carts_7d") public int carts7;
    /** Milliseconds, -1 before the first purchase. */
    @JsonProperty("recency") public long recency;

    /** The windows at an instant: 7 days in tiles of an hour, 30 in tiles of six, 90 in tiles of a day. */
    public static Values at(Profile profile, long now) {
        Values values = new Values();
        int week = first(now, 7, 1);
        int month = first(now, 30, 6);
        int quarter = first(now, 90, 24);
        for (int row = profile.size - 1; row >= 0 && profile.hours[row] >= quarter; row--) {
            int hour = profile.hours[row];
            int orders = profile.orders[row];
            long spend = profile.spend[row];
            values.orders90 += orders;
            values.spend90 += spend;
            if (hour >= month) {
                values.orders30 += orders;
                values.spend30 += spend;
                values.opens30 += profile.opens[row];
            }
            if (hour >= week) {
                values.orders7 += orders;
                values.spend7 += spend;
                values.views7 += profile.views[row];
                values.carts7 += profile.carts[row];
            }
        }
        values.recency = profile.lastPurchase < 0 ? -1 : now - profile.lastPurchase;
        return values;
    }

    /** The first hour inside of a window; a tile of some hours leaves as a whole. */
    private static int first(long now, int days, int tileHours) {
        long tile = (long) tileHours * Profile.HOUR;
        return (int) ((now - days * 24L * Profile.HOUR) / tile) * tileHours;
    }
}
