"""What an event costs is counted in calls, which no busy machine changes.

So a slow-down is seen in the change that brings it. After a change that saves calls, lower the budget; raise it only
for something that is worth it.
"""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable
from itertools import islice

import pytest

from streamseg.core.change import Change
from streamseg.core.definitions import Definitions
from streamseg.core.units import DAY
from streamseg.formats import messages
from streamseg.formats.definitions_yaml import read_definitions
from streamseg.replay import Replay
from streamseg.shop import Shop
from streamseg.worker.customers import Customers
from tests.worker.running_worker import STARTER

EVENTS, CUSTOMERS = 6_000, 300
GROUP = 500
"""Events that a busy worker writes the states of at once, at least."""
BUDGET = {"read and applied": 52.0, "written": 19.0}
"""Calls of functions, Python's own among them, an event."""


@pytest.fixture(scope="module")
def definitions() -> Definitions:
    return read_definitions(STARTER)


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    shop = Shop(seed=7, events=EVENTS, customers=CUSTOMERS, span_ms=90 * DAY)
    return [line for _, line in shop.lines()]


def calls(work: Callable[[], object]) -> float:
    """Calls an event."""
    profile = cProfile.Profile()
    profile.enable()
    work()
    profile.disable()
    return float(vars(pstats.Stats(profile))["total_calls"]) / EVENTS


def test_reading_and_applying_an_event_stays_within_its_budget(definitions: Definitions, lines: list[bytes]) -> None:
    changes: list[Change] = []
    replay = Replay(definitions, changes.append)
    spent = calls(lambda: replay.run(lines))
    assert len(changes) > EVENTS / 20
    assert 0.5 * BUDGET["read and applied"] <= spent <= BUDGET["read and applied"]


def test_writing_states_and_changes_stays_within_its_budget(definitions: Definitions, lines: list[bytes]) -> None:
    changes: list[Change] = []
    customers = Customers(definitions)
    replay = Replay(definitions, changes.append)
    replay.run(lines)

    def write() -> None:
        names = iter(list(replay.profiles.items()) * (EVENTS // CUSTOMERS))
        while group := list(islice(names, GROUP)):
            for name, profile in group:
                customers.put(name, profile)
            customers.collect({})
        for change in changes:
            messages.change_data(change)

    spent = calls(write)
    assert 0.5 * BUDGET["written"] <= spent <= BUDGET["written"]
