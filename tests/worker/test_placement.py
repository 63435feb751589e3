"""Which partition a customer belongs to, and what an event that was sent on says of where it came from."""

from __future__ import annotations

import pytest

from streamseg.core.errors import RejectedEvent
from streamseg.core.segmenter import COMPLETE
from streamseg.formats.messages import MOST_OFFSET, Origin, read_rekeyed_headers, rekeyed_headers
from streamseg.worker.placement import MURMUR2, PRODUCERS, OtherPlacementError, Placement, fault, partition_of
from streamseg.worker.settings import Keys

# Of Kafka's own tests of murmur2 (UtilsTest.testMurmur2), as its producers make them positive.
JAVA = {
    "21": -973932308,
    "foobar": -790332482,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    "abc": 479470107,
}


@pytest.mark.parametrize("customer", JAVA)
def test_a_customer_belongs_where_a_java_client_puts_it(customer: str) -> None:
    for partitions in (1, 4, 12, 1_000):
        assert partition_of(customer, partitions) == (JAVA[customer] & 0x7FFFFFFF) % partitions


def test_what_is_wrong_with_an_event_is_told_from_its_key() -> None:
    assert [fault(key, b"ada") for key in (None, b"", b"bob", b"ada")] == [
        "missing", "mismatch", "mismatch", "partition",
    ]  # fmt: skip


def customers_of(partition: int, partitions: int) -> list[bytes]:
    found = [f"c-{number}" for number in range(100)]
    return [customer.encode() for customer in found if partition_of(customer, partitions) == partition]


@pytest.mark.parametrize("keys", [Keys.REKEY, Keys.REJECT])
@pytest.mark.parametrize("made_by", ["", PRODUCERS])
def test_a_state_whose_customers_are_all_in_their_partitions_is_taken_over(keys: Keys, made_by: str) -> None:
    Placement(keys, 4).check_states(1, customers_of(1, 4), made_by, "shop")


@pytest.mark.parametrize("keys", [Keys.REKEY, Keys.REJECT])
@pytest.mark.parametrize("made_by", ["", PRODUCERS])
def test_a_state_with_a_customer_in_the_wrong_partition_is_refused(keys: Keys, made_by: str) -> None:
    stranger = customers_of(2, 4)[-1]
    with pytest.raises(OtherPlacementError, match=f"partition 1 of group 'shop' .* such as '{stranger.decode()}': "):
        Placement(keys, 4).check_states(1, [*customers_of(1, 4), stranger], made_by, "shop")


def test_a_state_that_was_left_to_the_producers_or_is_of_before_there_was_a_choice_can_stay_so() -> None:
    for made_by in ("", PRODUCERS):
        Placement(Keys.TRUST, 4).check_states(1, customers_of(2, 4), made_by, "shop")


def test_a_state_whose_customers_were_sent_to_their_partitions_is_not_left_to_the_producers() -> None:
    with pytest.raises(OtherPlacementError, match="was made with --keys rekey or reject"):
        Placement(Keys.TRUST, 4).check_states(1, [], MURMUR2, "shop")


@pytest.mark.parametrize("observed_from", [COMPLETE, 0, 1_700_000_000_000])
def test_an_event_that_is_sent_on_says_where_it_came_from(observed_from: int) -> None:
    origin = Origin("shop.events-1", 3, 77)
    assert read_rekeyed_headers(rekeyed_headers(origin, observed_from)) == (origin, observed_from)


@pytest.mark.parametrize(
    "headers",
    [
        [], [("origin", None)], [("origin", b"")], [("origin", b"shop/1")], [("origin", b"shop/x/1")],
        [("origin", b"\xff/1/1")], [("origin", b"shop/1/-1")], [("origin", b"shop/1/%d" % MOST_OFFSET)],
        [("origin", b"shop/1/1"), ("observed-from", b"x")],
    ],
    ids=str,
)  # fmt: skip
def test_a_record_without_a_readable_origin_was_not_sent_on_by_a_worker(
    headers: list[tuple[str, bytes | None]],
) -> None:
    with pytest.raises(RejectedEvent) as rejected:
        read_rekeyed_headers(headers)
    assert rejected.value.reason == "no_origin"
