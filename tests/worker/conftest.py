"""What tests of the worker share."""

from __future__ import annotations

import pytest

from streamseg.worker.memory_states import MemoryStates
from streamseg.worker.states import States


@pytest.fixture
def states() -> States:
    """An empty place for the states of a partition."""
    return MemoryStates()
