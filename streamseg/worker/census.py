"""How many customers each segment has, and what they are worth, for one partition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from streamseg.core.definitions import Definitions
from streamseg.core.profile import UNSET
from streamseg.formats.state import Header


class Census:
    """Counts customers and their worth by scheme and segment."""

    def __init__(self, definitions: Definitions) -> None:
        self._names = [(compiled.scheme.name, compiled.scheme.names) for compiled in definitions.schemes]
        self.customers: Counter[tuple[int, int]] = Counter()
        self.worth: Counter[tuple[int, int]] = Counter()

    def add(self, header: Header, sign: int = 1) -> None:
        """Counts a customer in (or out, with sign -1)."""
        for place, segment in enumerate(header.segments):
            if segment != UNSET:
                self.customers[place, segment] += sign
                self.worth[place, segment] += sign * header.worth

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
