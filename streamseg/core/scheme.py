"""A scheme: one way of putting every customer into exactly one segment."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamseg.core.units import Duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment of a scheme; conditions are the texts of the file."""

    name: str
    when: str
    stay_when: str | None = None
    min_stay: Duration = 0
    action: str | None = None
    owner: str | None = None
    line: int = 0
    """Where it stands in the file, from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """Segments in the order that decides, then the default, which always holds."""

    name: str
    segments: tuple[Segment, ...]
    default: str
    owner: str | None = None
    names: tuple[str, ...] = field(init=False)
    """All segments' names, the default last: what an index of a segment stands for."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", (*(segment.name for segment in self.segments), self.default))
