"""Workers under faults at any moment keep what is promised, and the simulator would notice if they did not."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis import Redis

from streamseg.worker.redis_server import SCRIPT
from tests.docs.markdown import Document, rows, words
from tests.simulator.broken import BY_NAME, MUTATIONS
from tests.simulator.redis import Data
from tests.simulator.story import tell

ROOT = Path(__file__).parents[2]
STORIES = 150
OFTEN = 100
"""A protocol that was found out within so many stories is looked at here, the others by `make simulate BROKEN=all`."""
PATIENCE = 300
TABLE = rows(Document("docs/chaos.md").section("The simulator"))
FOUND_OUT = {words(name)[0]: int(seed) if seed.isdigit() else 0 for name, _, seed in TABLE if words(name)}


def test_whatever_happens_customers_change_once_and_in_order() -> None:
    wrong = {seed: told.wrong for seed in range(1, STORIES + 1) if (told := tell(seed)).wrong}
    assert not wrong


def test_the_document_tells_of_every_step_that_can_be_left_out() -> None:
    assert list(FOUND_OUT) == [each.name for each in MUTATIONS]


@pytest.mark.parametrize("name", [name for name, seed in FOUND_OUT.items() if 0 < seed <= OFTEN])
def test_a_protocol_without_a_step_is_found_out(name: str) -> None:
    # Any change of the product changes the stories: then another one than that in the document finds it out.
    with BY_NAME[name].applied():
        assert any(tell(seed).wrong for seed in [FOUND_OUT[name], *range(1, PATIENCE)])


@pytest.mark.parametrize("name", BY_NAME)
def test_an_edit_that_leaves_a_step_out_fits_the_product(name: str) -> None:
    with BY_NAME[name].applied():
        pass


def test_a_seed_tells_the_same_story_in_every_process() -> None:
    seeds = (3, 7)
    program = (
        f"from tests.simulator.story import tell\nfor seed in {seeds}: print(*tell(seed, traced=True).trace, sep='\\n')"
    )
    there = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
    )
    here = [line for seed in seeds for line in tell(seed, traced=True).trace]
    assert len(here) > 100
    assert there.stdout.splitlines() == here


def test_the_simulated_redis_does_what_the_script_does_in_the_real_one(redis_url: str, prefix: str) -> None:
    dice, simulated = random.Random(1), Data(mark=b"m")
    with Redis.from_url(redis_url, decode_responses=True) as redis:
        script = redis.register_script(SCRIPT)
        redis.set(f"{prefix}:view", "m")
        for _ in range(200):
            batch = msgspec.msgpack.encode([each for _ in range(dice.randrange(1, 5)) for each in _entry(dice)])
            mark = dice.choice([b"m", b"m", b"m", b"another"])
            assert script(args=[batch, f"{prefix}:", 1000, mark]) == simulated.run(batch, mark)
        assert _held(redis, f"{prefix}:customer:") == simulated.hashes
        assert _held(redis, f"{prefix}:count:") == _texts(simulated.counts)
        assert _held(redis, f"{prefix}:moves:") == _texts(simulated.moves)


def _entry(dice: random.Random) -> list[Any]:
    version, segment = dice.randrange(6), dice.choice("ab")
    ahead = dice.choice(["soon", "late"])
    lists: list[list[Any]] = [
        ["value.next_change_at", ahead],
        ["version", str(version), "value", segment],
        dice.choice([["value.next_segment"], []]),
        ["value", segment],
        [each for moved in range(dice.choice([0, version])) for each in (moved, "value:2026-01-01", "a>b")],
    ]
    customer = dice.randrange(4)
    return [f"c{customer}", version, customer % 2, dice.randrange(1, 4), *map(len, lists), *chain.from_iterable(lists)]


def _held(redis: Any, start: str) -> dict[str, dict[str, str]]:
    return {key.removeprefix(start): redis.hgetall(key) for key in redis.scan_iter(f"{start}*")}


def _texts(counters: Any) -> dict[str, dict[str, str]]:
    return {name: {key: str(count) for key, count in each.items()} for name, each in counters.items()}
