"""What is published: changes as CloudEvents in binary mode, assignments, dead letters, events sent on. All as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from streamseg.core.assignment import NO_FORECAST, Forecast
from streamseg.core.change import Change
from streamseg.core.definitions import Definitions
from streamseg.core.errors import RejectedEvent
from streamseg.core.profile import UNSET, Profile
from streamseg.core.segmenter import COMPLETE
from streamseg.core.tile import NEVER
from streamseg.core.units import Instant, format_instant

CHANGE_TYPE = "streamseg.segment.changed.v1"
MOST_OFFSET = 1 << 56
"""No partition comes to so many records; as a position, any offset below has room in a state."""
Headers = list[tuple[str, bytes]]

encode_json = msgspec.json.Encoder().encode
decode_json = msgspec.json.Decoder().decode


def change_data(change: Change) -> bytes:
    """The body of a change message."""
    return encode_json(change.data())


def change_headers(customer: bytes, version: int, at: Instant, source: bytes) -> Headers:
    """CloudEvents attributes of a change: the same for the same change, for ever."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"%b:%d" % (customer, version)),
        ("ce_source", source),
        ("ce_type", CHANGE_TYPE.encode()),
        ("ce_time", format_instant(at).encode()),
        ("ce_subject", customer),
        ("content-type", b"application/json"),
    ]


def assignment(definitions: Definitions, profile: Profile, ahead: Mapping[int, Forecast]) -> dict[str, dict[str, Any]]:
    """Each scheme's segment, since when, and what comes next if nothing happens."""
    found: dict[str, dict[str, Any]] = {}
    for place, compiled in enumerate(definitions.schemes):
        segment = profile.segments[place]
        if segment == UNSET:
            continue
        names, following = compiled.scheme.names, ahead.get(place, NO_FORECAST)
        found[compiled.scheme.name] = {
            "segment": names[segment],
            "since": format_instant(profile.entered[place]),
            "next_change_at": None if following.at == NEVER else format_instant(following.at),
            "next_segment": None if following.target == UNSET else names[following.target],
        }
    return found


def current_data(customer: str, profile: Profile, definitions: Definitions, schemes: Mapping[str, Any]) -> bytes:
    """The body of a message of the compacted topic: the customer's whole assignment."""
    return encode_json(
        {
            "customer_id": customer,
            "version": profile.version,
            "time": format_instant(profile.at),
            "definitions": definitions.hash,
            "schemes": schemes,
        }
    )


class Origin(NamedTuple):
    """Where an event stands that its producer sent."""

    topic: str
    partition: int
    offset: int

    @property
    def source(self) -> str:
        """The partition it came from, as the name of positions: no topic's name has a slash."""
        return f"{self.topic}/{self.partition}"


def dead_letter_headers(error: RejectedEvent, origin: Origin) -> Headers:
    """Why an event was rejected, and where it stood."""
    return [
        ("reason", error.reason.encode()),
        ("detail", error.detail.encode("utf-8", "replace")),
        ("topic", origin.topic.encode()),
        ("partition", str(origin.partition).encode()),
        ("offset", str(origin.offset).encode()),
    ]


def rekeyed_headers(origin: Origin, observed_from: Instant) -> Headers:
    """What goes with an event that is sent on: its origin; since when that was observed, if not from its beginning."""
    headers = [("origin", f"{origin.source}/{origin.offset}".encode())]
    if observed_from != COMPLETE:
        headers.append(("observed-from", str(observed_from).encode()))
    return headers


def read_rekeyed_headers(headers: Iterable[tuple[str, bytes | None]]) -> tuple[Origin, Instant]:
    """The origin of an event that was sent on, and since when that was observed.

    Raises RejectedEvent if it has none.
    """
    found = dict(headers)
    try:
        topic, partition, offset = (found["origin"] or b"").decode().split("/")
        origin = Origin(topic, int(partition), int(offset))
        if not 0 <= origin.offset < MOST_OFFSET:
            raise ValueError
        return origin, int(found.get("observed-from") or COMPLETE)
    except (KeyError, ValueError):
        raise RejectedEvent("no_origin", "not sent on by a worker: it has no origin among its headers") from None
