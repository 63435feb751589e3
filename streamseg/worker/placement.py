"""Which partition a customer belongs to, and what that means for an event that came to another one.

A customer's state is where its events are, so all of them have to meet in one partition. By `--keys rekey` and
`reject` that is the one where Kafka's Java clients put the customer id (murmur2), whatever the key says; by
`--keys trust` it is the one that the producers chose. The argument stands in docs/decisions/0014.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import Literal

from aiokafka.partitioner import murmur2

from streamseg.core.errors import InputError, RejectedEvent
from streamseg.formats.messages import Origin
from streamseg.worker.settings import Keys

logger = logging.getLogger("streamseg.worker")

REMEMBERED = 50_000
"""Customers whose partition is not computed again, in one process: those that come to wrong ones, mostly."""
EXAMPLES = 3

Why = Literal["missing", "mismatch", "partition"]
"""What is wrong with an event that is sent on: no key, another key, or the right key in the wrong partition."""

_FAULTS: dict[Why, str] = {
    "missing": "has no key",
    "mismatch": "has a key that is not the customer id",
    "partition": "is not in the partition where murmur2 puts its key",
}

MURMUR2, PRODUCERS = "murmur2", "producers"
"""Who chooses the partition of a customer; noted in checkpoints."""


class OtherPlacementError(InputError):
    """The stored states are in other partitions than customers would be put into now."""


@lru_cache(maxsize=REMEMBERED)
def partition_of(key: str | bytes, partitions: int) -> int:
    """Where Kafka's Java clients, and all that agree with them, put records with this key."""
    return (int(murmur2(key.encode() if isinstance(key, str) else key)) & 0x7FFFFFFF) % partitions


class Placement:
    """The rule by which customers belong to one of so many partitions."""

    def __init__(self, keys: Keys, partitions: int) -> None:
        self.rule = PRODUCERS if keys is Keys.TRUST else MURMUR2
        self.by_key = keys is not Keys.REKEY
        """Whether an event's key is looked at; else only where it came."""
        self._partitions = partitions
        self._warned: set[str] = set()

    def of(self, customer: str, came_to: int) -> int:
        """The partition where a customer belongs that has no state where its event came to."""
        return came_to if self.rule == PRODUCERS else partition_of(customer, self._partitions)

    def warn(self, origin: Origin, why: Why) -> None:
        """Says of each topic once that its events have to be sent on."""
        if origin.topic not in self._warned:
            self._warned.add(origin.topic)
            logger.warning(
                "the event at offset %d of %s %s: it is sent on to its customer's partition, and so is every one like "
                "it; see streamseg_rekeyed_events_total, and --keys", origin.offset, origin.source, _FAULTS[why],
            )  # fmt: skip

    def check_states(self, partition: int, customers: Iterable[bytes], made_by: str, group: str) -> None:
        """Raises OtherPlacementError if states that were `made_by` a rule ("": unknown) are not placed by this one.

        Unless they are known to be, all are looked at: once, when a state is taken over from before rules were noted.
        """
        if made_by == self.rule:
            return
        if self.rule == PRODUCERS:
            if made_by:
                raise OtherPlacementError(
                    f"the state of group {group!r} was made with --keys rekey or reject: start with that, or with "
                    "another --group and --prefix, which builds its state anew from the event topics"
                )
            return
        strangers = (each for each in map(bytes.decode, customers) if self.of(each, partition) != partition)
        if some := list(islice(strangers, EXAMPLES)):
            raise OtherPlacementError(
                f"partition {partition} of group {group!r} has customers who belong to another one by murmur2, such as "
                f"{', '.join(map(repr, some))}: start with --keys trust if all producers put a customer into the same "
                "partition, else with another --group and --prefix, which builds the state anew from the event topics"
            )


def fault(key: bytes | None, customer: bytes) -> Why:
    """Why an event came to the wrong partition."""
    if key is None:
        return "missing"
    return "partition" if key == customer else "mismatch"


def check_key(key: bytes | None, customer: bytes) -> None:
    """Raises RejectedEvent unless the key is the customer id."""
    if key is None:
        raise RejectedEvent("key_missing", "the record has no key; it must be the customer id")
    if key != customer:
        raise RejectedEvent("key_mismatch", "the record's key is not the customer id")
