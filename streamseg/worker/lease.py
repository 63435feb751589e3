"""How long a worker may take itself for a member of its group without asking: as long as its session lasts.

A worker that was paused for longer (a zombie) finds, before it sends anything, that its lease has run out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from aiokafka.errors import NodeNotReadyError
from aiokafka.protocol.produce import ProduceRequest

from streamseg.core.errors import TryAgainError


class KickedOutError(TryAgainError):
    """The group went on without this worker, which had still something to send."""


def _awake() -> float:
    """Seconds that only rise, those in which the machine slept among them."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


class Lease:
    """When the group last confirmed this worker. Renewed by the consumer's thread, read by the worker's."""

    def __init__(self, session_seconds: float, clock: Callable[[], float] = _awake) -> None:
        self.clock = clock
        self._session_seconds = session_seconds
        self._renewed = float("-inf")

    @property
    def valid(self) -> bool:
        """Whether the group cannot have given our partitions away."""
        return self.clock() - self._renewed < self._session_seconds

    def renew(self, asked: float) -> None:
        """Notes a confirmation; what counts is when it was asked for."""
        self._renewed = max(self._renewed, asked)


def watch_membership(coordinator: Any, lease: Lease, kicked_out: Callable[[], None]) -> None:
    """Has an aiokafka coordinator renew the lease with each heartbeat, and tell when the group knows it no more."""
    if vars(coordinator).get("lease") is lease:
        return
    coordinator.lease = lease
    beat, reset = coordinator._do_heartbeat, coordinator.reset_generation

    async def do_heartbeat() -> bool:
        asked = lease.clock()
        confirmed: bool = await beat()
        if confirmed:
            lease.renew(asked)
        return confirmed

    def reset_generation() -> None:
        reset()  # first: from now on nobody takes a partition for theirs and begins to write
        kicked_out()

    coordinator._do_heartbeat, coordinator.reset_generation = do_heartbeat, reset_generation


def hold_without(lease: Lease, client: Any) -> None:
    """Has an aiokafka client hold what it produces while the lease is not valid: the producer tries it again."""
    send = client.send

    async def guarded(node_id: int, request: Any, **options: Any) -> Any:
        if isinstance(request, ProduceRequest) and not lease.valid:
            raise NodeNotReadyError("the session may have run out: nothing is sent before the group confirms it")
        return await send(node_id, request, **options)

    client.send = guarded


def unsent(producer: Any) -> bool:
    """Whether an aiokafka producer has something that no broker has acknowledged."""
    accumulator = producer._message_accumulator
    return bool(accumulator._batches or accumulator._pending_batches)
