"""The reasons for which an event is rejected: what each means, and how to mend it.

The one table of them. Reasons are labels of metrics and headers of dead letters, so they are few and fixed; the texts
are shown by `streamseg dead-letters`, by a worker that stops because of them, and in docs/events.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Rejection(NamedTuple):
    """What is wrong with events that are rejected for one reason."""

    what: str
    """What is wrong."""
    mend: str
    """What to do, in a clause without its full stop."""
    inherent: bool = True
    """Whether it lies in the bytes of the event: then they are rejected again whenever they come."""


_CORRECTED = "have the producer send the event corrected, under the same id"
_ENCODED = "have the producer send UTF-8 JSON, one object a record, neither compressed nor in an envelope"
_KEYED = "have the producer key records by the customer id, or run the workers with `--keys rekey`"

REASONS: Mapping[str, Rejection] = MappingProxyType(
    {
        "null_value": Rejection("a record without a value", "keep tombstones off the topic: they erase nobody here"),
        "empty": Rejection("nothing but white space", _ENCODED),
        "too_large": Rejection("more than 64 KB", "have the producer leave out what no definition reads"),
        "malformed_json": Rejection("not JSON", _ENCODED),
        "invalid_utf8": Rejection("not UTF-8", _ENCODED),
        "too_deep": Rejection("nested too deeply", "have the producer send flat events"),
        "not_an_object": Rejection("JSON, but no object", _ENCODED),
        "missing_field": Rejection(
            "`type`, `customer_id` or `time` is missing; a purchase without `amount`, a refund without `order_id`, a "
            "profile without `attributes`",
            _CORRECTED,
        ),
        "wrong_type": Rejection("a field of another JSON type than it must be", _CORRECTED),
        "out_of_range": Rejection("a number too large, or an amount above 10^15 of the smallest unit", _CORRECTED),
        "bad_id": Rejection(
            "`id`, `customer_id` or `order_id`: empty, longer than 256 bytes, or with control characters", _CORRECTED
        ),
        "bad_type": Rejection("`type` has other characters, or more than 64", _CORRECTED),
        "bad_time": Rejection("no RFC 3339 time with an offset, or outside of 1970 to 9999", _CORRECTED),
        "bad_amount": Rejection("no decimal number", _CORRECTED),
        "negative_amount": Rejection("below zero", "have the producer send money that goes back as a `refund`"),
        "bad_currency": Rejection("not three capital letters", _CORRECTED),
        "unknown_currency": Rejection(
            "the definitions have no rate for it", "add the currency to `rates` in new definitions", inherent=False
        ),
        "bad_attributes": Rejection("`attributes` holds a list or an object", _CORRECTED),
        "future_time": Rejection(
            "more than 5 minutes ahead of the worker's clock",
            "set the clocks of the producer and of the worker; what is past by now can be sent again as it is",
            inherent=False,
        ),
        "unsupported_type": Rejection(
            "`merge` or `erase`", "keep them until a release of streamseg takes them", inherent=False
        ),
        "key_missing": Rejection("the record has no key (`--keys trust` or `reject`)", _KEYED, inherent=False),
        "key_mismatch": Rejection(
            "the record's key is not the customer id (`--keys trust` or `reject`)", _KEYED, inherent=False
        ),
        "wrong_partition": Rejection(
            "murmur2 puts the customer into another partition (`--keys reject`)",
            "have the producer partition by murmur2 of the key, or run the workers with `--keys rekey`",
            inherent=False,
        ),
        "no_origin": Rejection(
            "in the topic of events sent on, a record that no worker wrote", "let nobody but workers write there"
        ),
    }
)
