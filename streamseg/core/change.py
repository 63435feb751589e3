"""A customer moved from one segment to another: what is told to the world."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from streamseg.core.tile import NEVER
from streamseg.core.units import Instant, format_instant


class Reason(StrEnum):
    """Why an evaluation took place."""

    EVENT = "event"
    TIME = "time"
    DEFINITIONS = "definitions"
    MERGE = "merge"
    ERASE = "erase"
    RESTORE = "restore"


class Change(NamedTuple):
    """One change of one customer in one scheme. A plain tuple: there are many."""

    customer: str
    scheme: str
    origin: str | None
    target: str | None
    version: int
    reason: Reason
    cause: str | None
    """The id of the event, if an event decided."""
    at: Instant
    since: Instant | None
    """When `origin` was entered."""
    next_change_at: Instant
    """`NEVER` if nothing changes by time alone."""
    next_segment: str | None
    definitions: str
    complete: bool
    values: dict[str, Any]

    @property
    def id(self) -> str:
        """The same for the same change, for ever."""
        return f"{self.customer}:{self.version}"

    def data(self) -> dict[str, Any]:
        """The change as it is published: the body of the message."""
        return {
            "customer_id": self.customer,
            "scheme": self.scheme,
            "from": self.origin,
            "to": self.target,
            "version": self.version,
            "reason": self.reason._value_,
            "cause": self.cause,
            "time": format_instant(self.at),
            "since": None if self.since is None else format_instant(self.since),
            "next_change_at": None if self.next_change_at == NEVER else format_instant(self.next_change_at),
            "next_segment": self.next_segment,
            "definitions": self.definitions,
            "complete": self.complete,
            "holdout": False,
            "values": self.values,
        }
