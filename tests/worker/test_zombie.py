"""A worker that was frozen past its session wakes up, and nothing of what it still had in hand does harm."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import msgspec
import pytest

from streamseg.formats import state as records
from streamseg.formats.state import CHECKPOINT_KEY, FENCE_KEY, WRITER
from streamseg.shop import Shop
from streamseg.worker.lease import Lease
from tests.worker.comparison import assert_same, found_schemes, repeats
from tests.worker.reference import expected
from tests.worker.running_worker import STARTER, Sent, Site, wait_until


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
    lines = list(Shop(seed=seed, customers=300, events=20_000).lines())
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


@pytest.mark.parametrize("when", ["while nothing happens", "while nobody works", "before more happens"])
def test_an_assignment_that_was_sent_too_late_does_not_stay_the_last(
    when: str, kafka: str, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    site = Site(kafka, redis_url, prefix, tmp_path, partitions=1).create()
    lines = list(Shop(seed=3, customers=20, events=400).lines())
    first, rest = (lines, []) if when != "before more happens" else (lines[:300], lines[300:])
    before, wanted = expected(STARTER, site.shares(first)), expected(STARTER, site.shares(lines))
    with site.worker() as worker:
        site.produce(first)
        site.wait_until_done([worker])
        assert_same(site, before)
        told = site.read(site.own("segment-current"))
        latest = {record.key: record.offset for record in told}
        outdated = [Sent(each.value, each.key) for each in told if each.offset < latest[each.key]]
        assert outdated
        if when == "while nobody works":
            worker.stop()
        site.send({0: outdated}, topic=site.own("segment-current"))
        assert found_schemes(site) != before.schemes
        if when == "while nobody works":
            with site.worker():
                assert_same(site, wanted)
        else:
            site.produce(rest)
            site.wait_until_done([worker])
            assert_same(site, wanted)


def test_the_last_word_of_a_worker_that_had_lost_the_partition_hides_no_change(
    kafka: str, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    site = Site(kafka, redis_url, prefix, tmp_path, partitions=1).create()
    lines = list(Shop(seed=3, customers=20, events=200).lines())
    with site.worker() as worker:
        site.produce(lines)
        site.wait_until_done([worker])
        worker.stop()
    log = [record for record in site.read(site.changelog) if record.value is not None]
    told = records.read_checkpoint([record.value for record in log if record.key == CHECKPOINT_KEY][-1])
    last = [record for record in log if record.key > FENCE_KEY and records.has_outbox(record.value)][-1]
    # A successor wrote a state with a change and died; then the predecessor said that all is published.
    successor = told.epoch + 1
    state = last.value[: WRITER.start] + records.writer(successor) + last.value[WRITER.stop :]
    far = last.offset + 1_000
    lie = msgspec.structs.replace(told, published=far, viewed=far, foreseen=far)
    fence, checkpoint = records.encode_fence(successor), records.encode_checkpoint(lie)
    site.send(
        {0: [Sent(fence, FENCE_KEY), Sent(state, last.key), Sent(checkpoint, CHECKPOINT_KEY)]}, topic=site.changelog
    )
    with site.worker() as worker:
        changes = len(records.read_outbox(last.value))
        assert worker.total("streamseg_republished_changes_total") == changes
        assert_same(site, expected(STARTER, site.shares(lines)))
