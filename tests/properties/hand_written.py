"""Definitions written by hand: such as somebody would really want, together using all of the language."""

_HEAD = "version: 1\ncurrency: EUR\nrates: {USD: 0.5}\n"

LIFECYCLE = (
    _HEAD
    + """
features:
  recency: since(purchase)
  tenure: age(any)
  orders: count(purchase, 90d)
  spend: sum(purchase.amount, 90d)
schemes:
  lifecycle:
    default: visitor
    segments:
      - {name: new, when: orders >= 1 and tenure < 2d}
      - {name: active, when: recency <= 10d, min_stay: 2d}
      - {name: cooling, when: 10d < recency <= 30d, stay_when: recency < 90d}
      - {name: lost, when: recency > 30d}
  worth:
    default: none
    segments:
      - {name: big, when: spend >= 100, stay_when: spend >= 50, min_stay: 10d}
      - {name: small, when: 0 < spend < 100}
"""
)

BASKETS = (
    _HEAD
    + """
refund_window: 2d
features:
  orders: count(purchase, 7d)
  spend: sum(purchase.amount, 7d)
  basket: avg(purchase.amount, 30d)
  largest: max(purchase.amount, 30d)
  smallest: min(purchase.amount, 30d)
  returned: sum(refund.amount, 30d)
  returns: count(refund, 30d)
schemes:
  basket:
    default: none
    segments:
      - {name: returner, when: returns >= 2 and orders == 0}
      - {name: refunded, when: returned > 0 and returned >= spend}
      - {name: large, when: spend / orders > 49.99}
      - {name: even, when: largest == smallest and basket != null}
      - {name: some, when: "basket <= 20 or orders in [2, 3]"}
  everything:
    default: none
    segments:
      - {name: much, when: "sum(any.amount, all) >= 100 and count(any, all) > 2"}
      - {name: kept, when: "avg(any.amount, all) > 5"}
"""
)

MINUTES = (
    _HEAD
    + """
refund_window: 1h
features:
  minute: count(page_view, 1m)
  five: count(page_view, 5m)
  quarter: count(any, 15m)
  hour: sum(purchase.amount, 1h)
  qty: sum(page_view.qty, 10m)
schemes:
  pace:
    default: slow
    segments:
      - {name: burst, when: minute >= 2, min_stay: 1m}
      - {name: fast, when: five >= 2 and qty > 1, stay_when: five >= 1}
      - {name: warm, when: quarter >= 2 or hour >= 50}
      - {name: here, when: since(engagement) < 5m}
"""
)

RFM = (
    _HEAD
    + """
rfm:
  recency: since(purchase)
  frequency: count(purchase, 365d)
  monetary: sum(purchase.amount, 365d)
  cuts: {recency: [1d, 7d, 30d, 90d], frequency: [0, 1, 2, 3], monetary: [9.99, 20, 50, 100]}
schemes:
  rfm:
    default: prospects
    segments:
      - {name: champions, when: r >= 4 and f >= 4 and m >= 4}
      - {name: loyal, when: r >= 3 and f >= 3, min_stay: 7d}
      - {name: promising, when: r == 5 and f <= 2, stay_when: r >= 4}
      - {name: at_risk, when: r <= 2 and (f >= 3 or m >= 4)}
      - {name: asleep, when: r <= 2}
      - {name: known, when: r != null}
  sum:
    default: low
    segments:
      - {name: high, when: r + f + m >= 11}
      - {name: middle, when: "(r + f + m) / 3 > 2.5"}
"""
)

FILTERS = (
    _HEAD
    + """
features:
  shoes: 'count(page_view where category == "shoes", 30d)'
  deals: count(purchase where coupon == true and amount < 50, 365d)
  dear: sum(purchase.amount where amount >= 50, 30d)
  orders: count(purchase, 365d)
  cats: distinct(page_view.category, 30d)
  kinds: distinct(any.qty, 7d)
  cart: since(cart_add)
  bought: since(purchase where amount > 5)
schemes:
  buying:
    default: browser
    segments:
      - {name: discount_driven, when: orders > 0 and deals / orders > 0.5}
      - {name: dear, when: dear >= 100}
      - {name: repeat, when: orders >= 2}
      - {name: one_time, when: orders == 1}
  next_step:
    default: none
    segments:
      - {name: abandoned_cart, when: 1h <= cart < 1d and (bought == null or bought > cart)}
      - {name: shoe_fan, when: "shoes >= 2 and cats in [1, 2]"}
      - {name: varied, when: kinds >= 3}
      - {name: vip_plan, when: 'attr(plan) in ["pro", "team"] and segment(buying) != "browser"'}
"""
)

CLOCKS = (
    _HEAD
    + """
features:
  seen: since(page_view)
  bought: since(purchase)
  born: age(any)
  orders: count(purchase, 90d)
schemes:
  gap:
    default: none
    segments:
      - {name: browsed_long_after, when: bought - seen > 1h}
      - {name: patient, when: bought > orders * 1d}
      - {name: halfway, when: bought * 2 > born}
      - {name: slow, when: seen / 1d + bought / 1d >= 3.5}
      - {name: hour, when: "seen in [1h, 2h, 1d]"}
      - {name: fresh, when: born < 2h}
  late:
    default: none
    segments:
      - {name: after, when: segment(gap) == "hour", stay_when: seen <= 2d, min_stay: 5m}
      - {name: not_early, when: not (born <= 1d or bought <= 1d)}
"""
)

ATTRIBUTES = (
    _HEAD
    + """
features:
  score: attr(score)
  category: last(page_view.category)
  amount: last(purchase.amount)
  qty: last(any.qty)
schemes:
  plan:
    default: none
    segments:
      - {name: vip, when: attr(vip) == true and attr(plan) != "free"}
      - {name: scored, when: score >= 3 or score == qty}
      - {name: shoes, when: 'category == "shoes" and not amount < 50'}
      - {name: unknown, when: attr(plan) == null and amount == null}
      - {name: other, when: 'attr(plan) != "pro"'}
  follower:
    default: none
    segments:
      - {name: with_plan, when: 'segment(plan) in ["vip", "scored"] and since(any) <= 7d', min_stay: 1h}
      - {name: lately, when: 'segment(plan) != "none" and count(any, 2d) >= 1'}
"""
)

LONG_WINDOWS = (
    _HEAD
    + """
refund_window: 10d
features:
  year: count(purchase, 365d)
  three: sum(purchase.amount, 1095d)
  ever: sum(purchase.amount, all)
  opened: count(app.open-v2, 2d)
schemes:
  span:
    default: never
    segments:
      - {name: daily, when: opened >= 1 and year >= 1}
      - {name: yearly, when: year >= 2, stay_when: year >= 1}
      - {name: older, when: three > 0 and three == ever}
      - {name: shrunk, when: three < ever}
      - {name: refunded, when: ever == 0 and since(purchase) != null}
"""
)

DEFINITIONS = [LIFECYCLE, BASKETS, MINUTES, RFM, FILTERS, CLOCKS, ATTRIBUTES, LONG_WINDOWS]


def readout(head: str, values: list[str], steps: list[str]) -> str:
    """Write definitions that show each value in a scheme of its own, by the highest step that it reaches."""
    lines = [_HEAD + head, "schemes:"]
    for number, value in enumerate(values):
        lines += [f"  value{number}:", "    default: rest", "    segments:"]
        ladder = reversed(list(enumerate(steps)))
        lines += [f"      - {{name: s{n}, when: '{value} >= {step}'}}" for n, step in ladder]
    return "\n".join(lines) + "\n"


ORDERS = readout(
    "refund_window: 1h",
    [
        "count(purchase, all)",
        "sum(purchase.amount, all)",
        "avg(purchase.amount, all)",
        "sum(purchase.qty, all)",
        "max(purchase.amount, 10m)",
        "last(refund.amount)",
    ],
    ["0", "0.01", "1", "2", "3", "4", "5", "10", "15", "20", "25", "45", "50", "55", "60", "100"],
)
VALUES = readout(
    "",
    [
        "last(page_view.qty)",
        "attr(score)",
        "distinct(any.qty, 2h)",
        "distinct(any.category, all)",
        "avg(page_view.qty, 10m)",
        'count(page_view where qty <= 1 or category == "shoes", 1h)',
        "count(page_view where not qty > 1, all)",
    ],
    ["-2", "0", "0.1", "0.3", "0.5", "1", "2", "3", "4", "5", "5.5"],
)
