"""A worker that dies (SIGKILL) when it passes a step of the protocol for the nth time.

Run as a module in place of streamseg: CHAOS_STEP names the step, CHAOS_PASSING is n.
"""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Callable
from typing import Any

from streamseg.worker.log import Log
from streamseg.worker.partition import Partition
from streamseg.worker.reading import Reading
from streamseg.worker.redis_cluster import Cluster
from streamseg.worker.redis_view import RedisView

STEPS = (
    "fenced", "republished", "folded", "completed", "states queued", "states acknowledged", "changes queued",
    "changes acknowledged", "batch acknowledged", "view told", "checkpoint written", "group written",
)  # fmt: skip
SHOWN_ON_A_CLUSTER = "shown on a cluster"
"""Between a batch of customers and their counters; only on Redis Cluster there is such an instant."""


class Doom:
    """Counts passings of a step."""

    def __init__(self, step: str, passings: int) -> None:
        self.step, self.left = step, passings

    def passes(self, step: str) -> None:
        """Die, if it is time."""
        if step == self.step:
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)


def after(doom: Doom, step: str, holder: type[Any], name: str, which: Callable[..., bool] | None = None) -> None:
    """Pass a step whenever a method has returned; `which` says of the method's arguments whether it counts."""
    method = getattr(holder, name)

    def passed(*given: Any) -> None:
        if which is None or which(*given):
            doom.passes(step)

    async def in_time(*given: Any, **named: Any) -> Any:
        result = await method(*given, **named)
        passed(*given)
        return result

    def at_once(*given: Any, **named: Any) -> Any:
        result = method(*given, **named)
        passed(*given)
        return result

    setattr(holder, name, in_time if inspect.iscoroutinefunction(method) else at_once)


def states(_: Any, topic: str, partition: int, items: list[Any]) -> bool:
    del partition
    return topic.endswith("changelog") and bool(items)


def changes(_: Any, topic: str, *rest: Any) -> bool:
    return topic.endswith("segment-changes") and bool(rest[-1])


def prepare(doom: Doom) -> None:
    """Put the steps where they belong."""
    after(doom, "fenced", Partition, "fence")
    after(doom, "republished", Partition, "_publish_again")
    after(doom, "folded", Partition, "_fold")
    after(doom, "completed", Partition, "_complete")
    after(doom, "states queued", Log, "append", states)
    after(doom, "states acknowledged", Partition, "_append")
    after(doom, "changes queued", Log, "append", changes)
    after(doom, "changes acknowledged", Partition, "_send", changes)
    after(doom, "batch acknowledged", Reading, "acknowledge")
    after(doom, "view told", RedisView, "put")
    after(doom, SHOWN_ON_A_CLUSTER, Cluster, "show")
    after(doom, "checkpoint written", Partition, "_write_checkpoint")
    after(doom, "group written", Partition, "_write")


if __name__ == "__main__":
    prepare(Doom(os.environ["CHAOS_STEP"], int(os.environ["CHAOS_PASSING"])))
    from streamseg.cli import main

    main()
