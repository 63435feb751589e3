"""One fact about one customer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from streamseg.core.units import Instant

PURCHASE, REFUND, PROFILE, MERGE, ERASE = "purchase", "refund", "profile", "merge", "erase"
CONTROL = frozenset({MERGE, ERASE})
NOT_ENGAGEMENT = frozenset({PURCHASE, REFUND, PROFILE, MERGE, ERASE})
ANY, ENGAGEMENT = "any", "engagement"
"""Names in an expression that stand for many types."""

FINGERPRINT_BYTES = 6
"""Of a hash of an id: by these ids and orders are remembered. See docs/decisions/0007."""

TYPE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


class Event(NamedTuple):
    """An accepted event. A plain tuple: millions a minute are made."""

    type: str
    customer: str
    time: Instant
    name: str
    """The event's id, or its place if it has none: the `cause` of changes."""
    fingerprint: bytes
    """`FINGERPRINT_BYTES` of a hash of the name: what duplicates are known by."""
    order: bytes
    """As many of a hash of the order's id; empty unless a purchase or a refund."""
    amount: int | None
    """Minor units of the definitions' currency; None if the event has no amount."""
    props: Mapping[str, Any]
    attributes: Mapping[str, Any]
