"""What every decoder of the floors takes from an event."""

from __future__ import annotations

import msgspec


class Wire(msgspec.Struct):
    """An event as JSON has it."""

    type: str
    customer_id: str
    time: str
    id: str
    amount: str | None = None
    props: dict[str, object] | None = None


decode = msgspec.json.Decoder(Wire).decode
