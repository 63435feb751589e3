"""Work of the compiled core comes to the same, whoever does it, and is done once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from streamseg.worker.apart import Apart, Threads, here
from tests.engine.test_fold import definitions_of, event
from tests.engine.twins import TOPIC, compiled, fetched

DEFINITIONS = definitions_of(Path(__file__).parents[2] / "streamseg" / "definitions" / "starter.yaml")
RECORDS = [event(number, number, f"c{number}") for number in range(20)]


def folded(records: Sequence[Any], apart: Apart) -> Any:
    engine = compiled(DEFINITIONS).customers.engine

    async def done() -> Any:
        return await apart(engine.fold(records, 0, len(records), TOPIC, None, 0.0, 0, True))

    return asyncio.run(done())


@pytest.mark.parametrize("records", [fetched(RECORDS), RECORDS], ids=["as the broker sent them", "objects"])
def test_a_thread_comes_to_what_the_loop_would(records: Sequence[Any]) -> None:
    assert folded(records, Threads()) == folded(records, here)


def test_work_is_given_once() -> None:
    work = compiled(DEFINITIONS).customers.engine.fold(fetched(RECORDS), 0, 1, TOPIC, None, 0.0, 0, True)
    assert work()[0] == 1

    with pytest.raises(RuntimeError, match="given already"):
        work()


def test_threads_that_are_closed_take_no_work() -> None:
    async def refused() -> None:
        threads = Threads()
        engine = compiled(DEFINITIONS).customers.engine
        await threads(engine.fold(fetched(RECORDS), 0, 1, TOPIC, None, 0.0, 0, True))
        threads.close()
        with pytest.raises(RuntimeError, match="take no more"):
            await threads(engine.fold(fetched(RECORDS), 1, 1, TOPIC, None, 0.0, 0, True))

    asyncio.run(refused())
