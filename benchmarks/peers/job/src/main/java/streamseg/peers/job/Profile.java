package streamseg.peers.job;

import java.util.Arrays;

/** What is kept of a customer: one row for each hour with events, oldest first, and where the customer stands. */
public class Profile {
    public static final int HOUR = 3_600_000;
    /** Hours that the longest window holds, and the day that its oldest tile may be longer. */
    private static final int KEPT_HOURS = 91 * 24;

    /** Rows in use; the arrays may be longer. */
    public int size;
    /** Hours since 1970. */
    public int[] hours = new int[4];
    public int[] orders = new int[4];
    public long[] spend = new long[4];
    public int[] views = new int[4];
    public int[] opens = new int[4];
    public int[] carts = new int[4];
    /** Milliseconds since 1970, -1 before the first purchase. */
    public long lastPurchase = -1;
    /** Index of the segment, -1 before the first event. */
    public int segment = -1;
    public int version;

    /** Adds an event; events of a customer come in order of time. */
    public void add(Event event) {
        int row = row((int) (event.time / HOUR));
        switch (event.type) {
            case "purchase" -> {
                orders[row]++;
                spend[row] += event.amount;
                lastPurchase = event.time;
            }
            case "page_view" -> views[row]++;
            case "email_open" -> opens[row]++;
            case "cart_add" -> carts[row]++;
            default -> { }
        }
    }

    private int row(int hour) {
        if (size > 0 && hours[size - 1] == hour) {
            return size - 1;
        }
        drop(hour - KEPT_HOURS);
        if (size == hours.length) {
            grow(2 * size);
        }
        hours[size] = hour;
        return size++;
    }

    /** Drops the rows before an hour. */
    private void drop(int first) {
        int gone = 0;
        while (gone < size && hours[gone] < first) {
            gone++;
        }
        if (gone > 0) {
            shift(hours, gone);
            shift(orders, gone);
            System.arraycopy(spend, gone, spend, 0, size - gone);
            Arrays.fill(spend, size - gone, size, 0);
            shift(views, gone);
            shift(opens, gone);
            shift(carts, gone);
            size -= gone;
        }
    }

    private void shift(int[] column, int gone) {
        System.arraycopy(column, gone, column, 0, size - gone);
        Arrays.fill(column, size - gone, size, 0);
    }

    /** Makes room for that many rows. */
    public void grow(int rows) {
        hours = Arrays.copyOf(hours, rows);
        orders = Arrays.copyOf(orders, rows);
        spend = Arrays.copyOf(spend, rows);
        views = Arrays.copyOf(views, rows);
        opens = Arrays.copyOf(opens, rows);
        carts = Arrays.copyOf(carts, rows);
    }
}
