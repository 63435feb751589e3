"""Where the states of one partition are, as bytes: in memory, or in RocksDB on disk. Both do the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol


class States(Protocol):
    """State records without outboxes, by customer.

    They are a copy of what the changelog says, made at each take-over, and need not outlive the process.
    """

    def get(self, key: bytes) -> bytes | None:
        """The state of a customer, None for an unknown one."""
        ...

    def put(self, states: Mapping[bytes, bytes]) -> None:
        """Keeps many states, in place of those that their customers had."""
        ...

    def delete(self, key: bytes) -> None:
        """Forgets a customer; an unknown one is none to forget."""
        ...

    def items(self) -> Iterable[tuple[bytes, bytes]]:
        """All customers and their states, in no order; nothing is put meanwhile."""
        ...

    def __iter__(self) -> Iterator[bytes]:
        """The customers there are at this moment, in no order, whatever is put meanwhile."""
        ...

    def drop(self) -> None:
        """Forgets all customers, for good: the partition is no longer ours."""
        ...
