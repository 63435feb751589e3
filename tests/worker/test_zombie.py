"""A worker that was frozen past its session wakes up, and nothing of what it still had in hand does harm."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from streamseg.shop import Shop
from streamseg.worker.lease import Lease
from tests.worker.comparison import assert_same, repeats
from tests.worker.reference import expected
from tests.worker.running_worker import STARTER, Site, wait_until


def test_a_lease_lasts_from_the_question_not_from_the_answer() -> None:
    now = 100.0
    lease = Lease(9.0, clock=lambda: now)
    valid = [lease.valid]
    asked, now = now, 108.0
    lease.renew(asked)
    valid.append(lease.valid)
    now = 109.0
    valid.append(lease.valid)
    lease.renew(90.0)  # an answer to an older question
    valid.append(lease.valid)
    assert valid == [False, True, False, False]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_worker_that_was_frozen_past_its_session_changes_nothing_when_it_wakes(
    seed: int, kafka: str, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    site = Site(kafka, redis_url, prefix, tmp_path, partitions=2).create()
    lines = list(Shop(seed=seed, customers=300, events=12_000).lines())
    wanted = expected(STARTER, site.shares(lines))
    dice = random.Random(seed)
    with site.workers(2) as workers:
        frozen, awake = workers
        enough = sum(site.ends(site.changelog).values()) + dice.randrange(20, 300)
        site.produce(lines)
        wait_until(lambda: sum(site.ends(site.changelog).values()) >= enough, "some states are written", workers)
        frozen.process.send_signal(signal.SIGSTOP)
        assert not site.done(), "all was done before the freeze: it proves nothing"
        site.wait_until_done([awake])
        frozen.process.send_signal(signal.SIGCONT)
        wait_until(
            lambda: frozen.process.poll() == 75 or (frozen.ready and site.members() == 2), "it is back or has ended"
        )
        site.wait_until_done([awake])
        assert_same(site, wanted)
    for name, forms in repeats(site).items():
        assert len(forms) == 1, name
