"""What tests of the worker share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from streamseg.worker.memory_states import MemoryStates
from streamseg.worker.rocks_states import RocksFolder
from streamseg.worker.settings import Store
from streamseg.worker.states import States


@pytest.fixture(params=list(Store))
def states(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[States]:
    """An empty place for the states of a partition, of each kind."""
    place: States = MemoryStates() if request.param is Store.MEMORY else RocksFolder(tmp_path / "states").open(3)
    yield place
    place.drop()
