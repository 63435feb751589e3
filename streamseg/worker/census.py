"""How many customers each segment has, and what they are worth, for one partition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from streamseg.core.definitions import Definitions
from streamseg.formats.state import NO_SEGMENT


class Census:
    """Counts customers and their worth by scheme and segment."""

    def __init__(self, definitions: Definitions) -> None:
        self._names = [(compiled.scheme.name, compiled.scheme.names) for compiled in definitions.schemes]
        self.customers: Counter[tuple[int, int]] = Counter()
        self.worth: Counter[tuple[int, int]] = Counter()

    def add(self, segments: bytes, worth: int, customers: int = 1) -> None:
        """Counts customers with these segments (one byte a scheme) in, or out if they are negative.

        The worth is that of all of them, and negative, too, if they go out.
        """
        for place, segment in enumerate(segments):
            if segment != NO_SEGMENT:
                self.customers[place, segment] += customers
                self.worth[place, segment] += worth

    def counts(self) -> dict[str, dict[str, int]]:
        """Customers by segment, for each scheme; those of segments without any are left out."""
        return {
            scheme: {name: count for segment, name in enumerate(names) if (count := self.customers[place, segment])}
            for place, (scheme, names) in enumerate(self._names)
        }

    def rows(self) -> Iterator[tuple[str, str, int, int]]:
        """Scheme, segment, customers, worth: all segments, empty ones too."""
        for place, (scheme, names) in enumerate(self._names):
            for segment, name in enumerate(names):
                yield scheme, name, self.customers[place, segment], self.worth[place, segment]
