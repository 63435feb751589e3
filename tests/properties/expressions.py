"""A strategy for definitions composed from a grammar: any condition that the language allows may come up."""

from hypothesis import strategies as st

WINDOWS = [
    "1m",
    "90s",
    "5m",
    "10m",
    "45m",
    "1h",
    "2h",
    "7h",
    "1d",
    "2d",
    "7d",
    "30d",
    "90d",
    "365d",
    "1095d",
    "all",
]
THRESHOLDS = ["0ms", "1ms", "1m", "5m", "90s", "1h", "2h", "1d", "36h", "7d", "1w", "10d", "30d", "90d"]
TYPES = ["purchase", "refund", "page_view", "cart_add", "any", "engagement", "app.open-v2", "profile"]
FILTERS = [
    'category == "shoes"',
    'category != "shoes"',
    'category in ["shoes", "hats", 1]',
    "category == null",
    "coupon == true",
    "not coupon == true",
    "qty >= 1",
    "0 < qty <= 2 or amount > 20",
    "amount < 50 and (coupon == true or qty != null)",
    "amount == 10",
    "qty + 1 > 2",
]
READINGS = [
    "count(purchase, all)",
    "count(any, 1d)",
    "sum(purchase.amount, all)",
    "sum(purchase.amount where amount >= 10, all)",
    "avg(purchase.amount, 30d)",
    "last(refund.amount)",
    "sum(refund.amount, all)",
    "sum(any.amount, 7d)",
    "sum(purchase.qty, all)",
    "avg(purchase.qty, all)",
    "last(any.qty)",
    "last(purchase.amount)",
    "attr(score)",
    "distinct(any.qty, all)",
    "distinct(any.category, 2d)",
    "r + f + m",
]
STEPS = ["-4", "0", "0.1", "0.5", "1", "2", "3", "4", "5", "7.25", "10", "20", "30", "49.99", "50", "60", "100", "300"]
TIMES = ["0ms", "1m", "5m", "1h", "2h", "1d", "2d", "7d", "30d"]
COMPARISONS = ["==", "!=", "<", "<=", ">", ">="]
ORDERINGS = ["<", "<=", ">", ">="]
NAMES = ["first", "second", "third"]


def one(choices: list[str]) -> st.SearchStrategy[str]:
    return st.sampled_from(choices)


def filters() -> st.SearchStrategy[str]:
    return st.just("") | one(FILTERS).map(lambda condition: f" where {condition}")


@st.composite
def aggregates(draw: st.DrawFn, function: str, fields: list[str]) -> str:
    """Draw one windowed aggregate."""
    return f"{function}({draw(one(TYPES))}.{draw(one(fields))}{draw(filters())}, {draw(one(WINDOWS))})"


@st.composite
def counts(draw: st.DrawFn) -> str:
    """Draw an expression that is a plain number, and does not move with time between events and tiles."""
    kind = draw(st.sampled_from(["count", "count", "distinct", "qty", "sum"]))
    if kind == "count":
        return f"count({draw(one(TYPES))}{draw(filters())}, {draw(one(WINDOWS))})"
    if kind == "distinct":
        return draw(aggregates("distinct", ["category", "qty"]))
    if kind == "qty":
        return draw(aggregates(draw(one(["sum", "avg", "min", "max"])), ["qty"]))
    return f"({draw(counts())} {draw(one(['+', '-', '*', '/']))} {draw(counts() | one(['2', '0.5', '3']))})"


@st.composite
def amounts(draw: st.DrawFn) -> str:
    """Draw an expression that is money."""
    kind = draw(st.sampled_from(["term", "term", "sum", "scaled"]))
    if kind == "term":
        return draw(aggregates(draw(one(["sum", "avg", "min", "max"])), ["amount"]))
    if kind == "sum":
        return f"({draw(amounts())} {draw(one(['+', '-']))} {draw(amounts())})"
    return f"({draw(amounts())} {draw(one(['*', '/']))} {draw(counts() | one(['2', '0.5', '3']))})"


@st.composite
def lapses(draw: st.DrawFn) -> str:
    """Draw an expression that is a duration."""
    kind = draw(st.sampled_from(["term", "term", "term", "sum", "scaled"]))
    if kind == "term":
        return f"{draw(one(['since', 'since', 'age']))}({draw(one(TYPES))}{draw(filters())})"
    if kind == "sum":
        return f"({draw(lapses())} {draw(one(['+', '-']))} {draw(lapses() | one(THRESHOLDS))})"
    return f"({draw(lapses())} {draw(one(['*', '/']))} {draw(one(['2', '3', '0.7']) | counts())})"


@st.composite
def comparisons(draw: st.DrawFn) -> str:
    """Draw a comparison of two things of one kind."""
    kind = draw(st.sampled_from(["count", "amount", "lapse", "between", "null", "list", "ratio", "days"]))
    operator = draw(one(COMPARISONS))
    if kind == "count":
        return f"{draw(counts())} {operator} {draw(one(['0', '1', '2', '3', '1.5']) | counts())}"
    if kind == "amount":
        return f"{draw(amounts())} {operator} {draw(one(['0', '10', '49.99', '50', '100']) | amounts())}"
    if kind == "lapse":
        return f"{draw(lapses())} {operator} {draw(one(THRESHOLDS) | lapses())}"
    if kind == "between":
        low, high = draw(one(THRESHOLDS)), draw(one(THRESHOLDS) | lapses())
        return f"{low} {draw(one(ORDERINGS))} {draw(lapses())} {draw(one(ORDERINGS))} {high}"
    if kind == "null":
        return f"{draw(counts() | amounts() | lapses())} {draw(one(['==', '!=']))} null"
    if kind == "list":
        return f"{draw(counts())} in [0, 1, {draw(counts())}]"
    if kind == "ratio":
        return f"{draw(amounts())} / {draw(counts())} {operator} {draw(one(['5', '10', '50']))}"
    return f"{draw(lapses())} / {draw(one(['1h', '1d']))} {operator} {draw(one(['1', '2.5', '7']) | counts())}"


PLAIN = [
    'attr(plan) == "pro"',
    'attr(plan) in ["pro", "team"]',
    "attr(plan) != null",
    "attr(vip) == true",
    "attr(score) >= 3",
    "attr(score) == last(page_view.qty)",
    'last(page_view.category) == "shoes"',
    "last(purchase.amount) >= 50",
    "last(any.qty where coupon == true) in [1, 2, null]",
    "last(refund.amount) == 10",
    "1m <= since(page_view) < 2h and (since(purchase) == null or since(purchase) > since(page_view))",
    "since(page_view) in [1h, 1d]",
    "since(page_view) - since(purchase) > 1h",
    "r >= 4 and f >= 2",
    "r == null",
    "r + f + m > 9",
    "m in [1, 3, 5]",
]


def conditions() -> st.SearchStrategy[str]:
    """Conditions of any depth."""
    leaves = comparisons() | comparisons() | one(PLAIN)
    return st.recursive(
        leaves,
        lambda below: st.one_of(
            st.tuples(below, below).map(lambda both: f"({both[0]} and {both[1]})"),
            st.tuples(below, below).map(lambda both: f"({both[0]} or {both[1]})"),
            below.map(lambda condition: f"not ({condition})"),
        ),
        max_leaves=4,
    )


RFM = """rfm:
  recency: since(purchase)
  frequency: count(purchase, 30d)
  monetary: sum(purchase.amount, 365d)
  cuts: {recency: [1h, 1d, 10d, 30d], frequency: [0, 1, 2, 4], monetary: [9.99, 50, 100.5, 300]}
"""


@st.composite
def segments(draw: st.DrawFn, name: str, above: str | None) -> str:
    """Draw a segment; `above` is a scheme that stands earlier in the file."""
    condition = draw(conditions())
    if above and draw(st.booleans()):
        condition = f'{condition} {draw(one(["and", "or"]))} segment({above}) {draw(one(["==", "!="]))} "rest"'
    lines = [f"      - name: {name}", f"        when: '{condition}'"]
    if draw(st.integers(0, 2)) == 2:
        lines.append(f"        stay_when: '{draw(conditions())}'")
    if draw(st.integers(0, 2)) == 2:
        lines.append(f"        min_stay: {draw(one(['1m', '1h', '2d', '10d', '1ms']))}")
    return "\n".join(lines)


@st.composite
def conditional_schemes(draw: st.DrawFn, above: str | None) -> str:
    """Draw the segments of a scheme with a condition of its own for each."""
    names = NAMES[: draw(st.integers(1, 3))]
    return "\n".join([draw(segments(name, above)) for name in names])


@st.composite
def ladders(draw: st.DrawFn) -> str:
    """Draw the segments of a scheme that tells one value nearly exactly: a slight mistake in it changes something."""
    kind = draw(st.sampled_from(["reading", "reading", "count", "amount", "lapse"]))
    value = draw({"reading": one(READINGS), "count": counts(), "amount": amounts(), "lapse": lapses()}[kind])
    stay = draw(one(["", "", "", ", min_stay: 1h", ", min_stay: 2d"]))
    steps = list(enumerate(TIMES if kind == "lapse" else STEPS))
    lines = [f"      - {{name: s{n}, when: '{value} >= {step}'{stay}}}" for n, step in reversed(steps)]
    return "\n".join(lines)


@st.composite
def composed_definitions(draw: st.DrawFn) -> str:
    """Draw a definitions file."""
    window = draw(one(["", "refund_window: 1h\n", "refund_window: 2d\n", "refund_window: 10d\n"]))
    text = f"version: 1\ncurrency: EUR\nrates: {{USD: 0.5}}\n{window}{RFM}schemes:\n"
    above = None
    for scheme in ["value", "stage"][: draw(st.integers(1, 2))]:
        parts = draw(ladders() | conditional_schemes(above))
        text += f"  {scheme}:\n    default: rest\n    segments:\n{parts}\n"
        above = scheme
    return text
