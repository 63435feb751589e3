"""T1 to T4, T7, T9: workers that die, are replaced, freeze and wake, and come and go."""

from __future__ import annotations

import signal
import time
from functools import partial

from tests.chaos.failing_worker import STEPS
from tests.chaos.stage import Grounds, Row, Stage, partitions_of
from tests.worker.running_worker import RunningWorker

SESSION_SECONDS = 9.0
"""After so long without a heartbeat a worker is dead to its group."""
FAILOVER_SECONDS, HANDOVER_SECONDS = 15.0, 5.0


def t1(grounds: Grounds) -> Row:
    """Kill the only worker again and again."""
    row = Row("T1", "kill -9 the worker")
    with grounds.stage(row) as stage:
        stage.start(1)
        stage.load(2_500, customers=20_000)
        for _ in range(grounds.times(30, 2)):
            stage.pause_between(0.3, 3.0)
            stage.kill(0)
        stage.finish()
    return row


def t2(grounds: Grounds) -> Row:
    """Kill two of three workers at once."""
    row = Row("T2", "kill -9 two of three workers at once")
    with grounds.stage(row) as stage:
        stage.start(3)
        stage.load(1_500)
        for _ in range(grounds.times(10, 1)):
            stage.pause_between(0.5, 2.0)
            stage.wait(lambda: all(worker.ready for worker in stage.workers), "all are ready")
            stage.kill(*stage.dice.sample(range(3), 2))
        stage.finish()
    return row


def t2b(grounds: Grounds) -> Row:
    """Kill one of two workers: the other takes over, and nobody is started before it has."""
    row = Row("T2b", "kill -9 one of two workers: fail-over to the other")
    with grounds.stage(row) as stage:
        stage.start(2)
        stage.load(1_500)
        for number in range(grounds.times(10, 1)):
            stage.pause_between(0.5, 2.0)
            stage.wait(lambda: all(partitions_of(worker) for worker in stage.workers), "both have their share")
            victim = number % 2
            lost = partitions_of(stage.workers[victim])
            stage.require_unfinished()
            gone = stage.workers.pop(victim)
            began = time.monotonic()
            gone.kill()
            row.kills += 1
            stage.recover(lost, began)
            stage.start(1)
        stage.finish()
    _require(row, FAILOVER_SECONDS)
    return row


def t3(grounds: Grounds) -> Row:
    """Stop and start three workers one after the other, as a roll-out does."""
    row = Row("T3", "SIGTERM, one worker after the other")
    replayed, exits = 0.0, list[float]()
    with grounds.stage(row) as stage:
        stage.start(3)
        stage.load(1_500)
        for number in range(grounds.times(20, 2)):
            stage.pause_between(0.5, 1.5)
            stage.wait(lambda: all(partitions_of(worker) for worker in stage.workers), "all have a share")
            victim = stage.workers.pop(number % 3)
            held = partitions_of(victim)
            replayed += victim.total("streamseg_events_total", result="replayed")
            stage.require_unfinished()
            began = time.monotonic()
            code = victim.stop()
            exits.append(time.monotonic() - began)
            row.kills += 1
            if code != 0:
                row.wrong.append(f"a stopped worker ended with code {code}: {victim.log_tail(3)}")
            stage.recover(held, began)
            stage.start(1)
        replayed += sum(worker.total("streamseg_events_total", result="replayed") for worker in stage.workers)
        stage.finish()
    row.notes |= {"replayed events a stop": round(replayed / max(1, row.kills), 1), "slowest exit s": max(exits)}
    if max(exits) > 10:
        row.wrong.append(f"a worker took {max(exits):.1f} s to stop")
    _require(row, HANDOVER_SECONDS)
    return row


def _require(row: Row, limit: float) -> None:
    """Nineteen of twenty recoveries are within the limit."""
    late = sum(each > limit for each in row.recoveries)
    if late > len(row.recoveries) / 20:
        row.wrong.append(f"{late} of {len(row.recoveries)} recoveries took more than {limit:g} s: {row.recoveries}")


def t4(grounds: Grounds) -> Row:
    """Freeze a worker past its session, and wake it when another has its partitions."""
    row = Row("T4", "SIGSTOP past the session, then SIGCONT (zombie)")
    stale = 0.0
    with grounds.stage(row) as stage:
        stage.start(2)
        stage.load(2_000)
        for number in range(grounds.times(10, 1)):
            stage.pause_between(0.3, 1.5)
            stage.wait(lambda: all(partitions_of(worker) for worker in stage.workers), "both have a share")
            zombie = stage.workers[number % 2]
            held = partitions_of(zombie)
            stage.require_unfinished()
            began = time.monotonic()
            zombie.process.send_signal(signal.SIGSTOP)
            row.kills += 1
            stage.recover(held, began)
            stage.pause_between(0.0, 3.0)
            zombie.process.send_signal(signal.SIGCONT)
            stage.wait(partial(_over, stage, zombie), "the zombie is back in the group or has ended")
        stale = sum(worker.total("streamseg_stale_records_total") for worker in stage.workers)
        stage.finish()
    row.notes["stale records met"] = int(stale)
    return row


def _over(stage: Stage, zombie: RunningWorker) -> bool:
    return (zombie.ready or zombie not in stage.workers) and all(worker.ready for worker in stage.workers)


def t7(grounds: Grounds) -> Row:
    """Die at every step of the protocol."""
    row = Row("T7", f"death at each of {len(STEPS)} steps of the protocol")
    with grounds.stage(row) as stage:
        stage.start(1)
        stage.load(1_000, customers=500)
        for step in STEPS[:: grounds.times(1, 4)]:
            stage.pause_between(0.1, 0.5)
            stage.workers.pop().kill()
            passing = stage.dice.randrange(1, 4) if step not in ("fenced", "republished") else 1
            doomed = stage.site.start(
                module="tests.chaos.failing_worker", environment={"CHAOS_STEP": step, "CHAOS_PASSING": str(passing)}
            )
            stage.wait(partial(_dead, doomed), f"the worker dies at {step}")
            if doomed.process.poll() != -signal.SIGKILL:
                row.wrong.append(f"at {step} it ended with {doomed.process.poll()}: {doomed.log_tail(3)}")
            row.kills += 1
            stage.require_unfinished()
            stage.start(1)
        stage.finish()
    return row


def _dead(worker: RunningWorker) -> bool:
    return worker.process.poll() is not None


def t9(grounds: Grounds) -> Row:
    """Scale up and down under load."""
    row = Row("T9", "scale 1 → 3 → 2 → 4 → 1")
    counts = [3, 2, 4, 1] * 5
    with grounds.stage(row) as stage:
        stage.start(1)
        stage.load(1_500)
        for count in counts[: grounds.times(20, 2)]:
            stage.pause_between(0.5, 2.0)
            stage.require_unfinished()
            began = time.monotonic()
            while len(stage.workers) > count:
                stage.leaving.append(stage.workers.pop(0))
                stage.leaving[-1].tell_to_stop()
            stage.start(max(0, count - len(stage.workers)))
            stage.recover(set(range(stage.site.partitions)), began)
            row.kills += 1
        stage.finish()
    if max(row.recoveries) > 30:
        row.wrong.append(f"the stream stood still for {max(row.recoveries):.0f} s")
    return row
