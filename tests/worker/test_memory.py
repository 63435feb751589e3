"""What a worker looks through for what hangs in cycles, and when."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator

import pytest

from streamseg.worker.memory import OLD, YOUNG, give_back


class Partition:
    """Something that refers to itself, as a partition that was closed does."""

    def __init__(self) -> None:
        self.own = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_what_was_there_at_a_rebalance_is_not_looked_through_amid_events() -> None:
    give_back(OLD)
    settled = gc.get_freeze_count()
    assert settled > 10_000  # whatever is imported, at least
    give_back(YOUNG)
    gc.collect()  # as Python itself does it
    assert gc.get_freeze_count() == settled


def test_what_the_next_rebalance_leaves_behind_is_found() -> None:
    partition = Partition()
    seen = weakref.ref(partition)
    give_back(OLD)
    del partition
    gc.collect()
    assert seen() is not None
    give_back(OLD)
    assert seen() is None


def test_a_worker_is_given_small_pages() -> None:
    told = "from streamseg.worker import memory; memory.bound(); print(open('/proc/self/status').read())"
    status = subprocess.run([sys.executable, "-c", told], check=True, capture_output=True, text=True).stdout
    assert "THP_enabled:\t0\n" in status
