"""Protocols with one step left out, to see that the simulator notices.

A mutation is an edit of the product's source, made while stories are told and never in the product. If the source has
changed so that an edit does not fit any more, it says so: mend the edit.
"""

from __future__ import annotations
import __future__

import inspect
import os
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from streamseg.worker.app import ShellApp
from streamseg.worker.batches import BatchConsumer
from streamseg.worker.current_topic import CurrentTopic
from streamseg.worker.lease import Lease
from streamseg.worker.loading import Loaded
from streamseg.worker.partition import Partition
from streamseg.worker.redis_server import Server
from streamseg.worker.store import PartitionStore
from tests.simulator.redis import Data
from tests.simulator.worker import ENGINE


@dataclass(frozen=True, slots=True)
class Edit:
    """Some text of a method, and what stands there instead."""

    method: Callable[..., Any]
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Broken:
    """A protocol without one of its steps."""

    name: str
    what: str
    """What it does wrongly, as a row of docs/chaos.md."""
    edits: tuple[Edit, ...]
    covered: str = ""
    """Why no story can find it out, if none can: what else would have to fail."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Have the product like that for a while."""
        with ExitStack() as patches:
            patches.enter_context(mock.patch.dict(os.environ, {ENGINE: "python"}))  # what is edited is Python
            for method in {edit.method for edit in self.edits}:
                patches.enter_context(mock.patch.object(_owner(method), method.__name__, self._edited(method)))
            yield

    def _edited(self, method: Callable[..., Any]) -> Any:
        source = textwrap.dedent(inspect.getsource(method))
        for edit in self.edits:
            if edit.method is method:
                if source.count(edit.old) != 1:
                    raise LookupError(f"{self.name} does not fit {method.__qualname__} any more: mend it in {__file__}")
                source = source.replace(edit.old, edit.new)
        made: dict[str, Any] = {}
        where = f"<without a step: {method.__qualname__}>"
        code = compile(source, where, "exec", __future__.annotations.compiler_flag)
        exec(code, method.__globals__, made)
        return made[method.__name__]


def _owner(method: Callable[..., Any]) -> type:
    owner: Any = inspect.getmodule(method)
    for name in method.__qualname__.split(".")[:-1]:
        owner = getattr(owner, name)
    assert isinstance(owner, type)
    return owner


def _broken(name: str, what: str, *edits: tuple[Callable[..., Any], str, str], covered: str = "") -> Broken:
    return Broken(name, what, tuple(Edit(*edit) for edit in edits), covered)


_STATES = "    if group.states:\n        await self._append"
_SENT_ON = "self._send(self._rekeyed, items, partition)"
_LETTERS = """\
    if group.rejects:
        await self._send(self._names.dead_letters, group.rejects)
        if not await self._owned():
            return False
"""
_PUBLISHED = "    if group.states:\n        self._published"
_STILL_OURS = "if not await self._owned():  # the acknowledgement may have taken long"
_SOMEBODY_ELSE = "if self._end != expected + len(items):"
_IGNORING = """\
    try:
        return await (await log.append(topic, self.number if partition is None else partition, items))
    except Exception:
        if topic == self._changelog:
            raise
        return -1"""
_PUBLISHED_AHEAD = """\
await self._append(group.states)
        self._published = self._end
        await self._write_checkpoint(always=True)"""
_GREATEST = """\
self.segmenter.clock = self._settled_clock = max(
            [checkpoint.clock, *(records.read_header(each).at for each in loaded.states.values())]
        )"""


def _unawaited(name: str, sent: str, what: str) -> Broken:
    return _broken(name, what, (Partition._write, sent, f"asyncio.sleep(0, asyncio.ensure_future({sent}))"))


MUTATIONS = (
    # The order of writes
    _broken(
        "changes-before-states",
        "changes are published before their states are safe",
        (
            Partition._write,
            _STATES,
            f"    await self._send(self._names.changes, group.changes)\n{_STATES}",
        ),
    ),
    _broken(
        "states-not-awaited",
        "states are sent, their acknowledgement is not awaited",
        (
            Partition._write,
            "await self._append(group.states)",
            "self._unawaited = asyncio.ensure_future(self._append(group.states))",
        ),
    ),
    _unawaited(
        "changes-not-awaited",
        "self._send(self._names.changes, group.changes)",
        "batches are acknowledged before changes are published",
    ),
    _unawaited("assignments-not-awaited", "self._assign(group.current)", "… before assignments are published"),
    _unawaited(
        "letters-not-awaited",
        "self._send(self._names.dead_letters, group.rejects)",
        "… before dead letters are written",
    ),
    _broken(
        "acknowledged-first",
        "batches are acknowledged before anything of them is written",
        (
            Partition._write,
            _STATES,
            f"    for ack in group.acks:\n        await ack()\n{_STATES}",
        ),
    ),
    _broken(
        "sent-on-not-awaited",
        "… before the broker has what is sent on to other partitions",
        (Partition._write, _SENT_ON, f"asyncio.sleep(0, asyncio.ensure_future({_SENT_ON}))"),
    ),
    _broken(
        "letters-after-states",
        "dead letters are written after states, so that what was too early may be neither rejected nor applied",
        (Partition._write, _LETTERS, ""),
        (Partition._write, _PUBLISHED, _LETTERS + _PUBLISHED),
    ),
    _broken(
        "refusals-ignored",
        "what the broker refuses is left out, and the worker goes on",
        (
            Partition._send,
            "    return await (await log.append(topic, self.number if partition is None else partition, items))",
            _IGNORING,
        ),
    ),
    # Recovery
    _broken(
        "replayed-not-skipped",
        "events that a state has applied are applied again",
        (Partition._apply, "if state is not None and offset <= state.offsets.get(position, -1):", "if False:"),
    ),
    _broken(
        "sent-on-twice",
        "an event that was sent on twice is applied twice",
        (
            Partition._apply,
            "if state is not None and offset",
            "if state is not None and '/' not in position and offset",
        ),
    ),
    _broken(
        "position-of-the-copy",
        "… as it is found out by where the copy stands, not by where the event came from",
        (Partition._take_sent_on, "origin.source, origin.offset)\n    if", "topic, record.offset)\n    if"),
    ),
    _broken(
        "one-position-for-all",
        "a customer has one position for its own partition and for those that others sent on from",
        (Partition._take_sent_on, "state, origin.source", "state, origin.topic"),
        (Partition._take_sent_on, "event.customer, origin.source", "event.customer, origin.topic"),
    ),
    _broken(
        "duplicates-not-noted",
        "an event that was sent on and is a duplicate by its id moves no position",
        (Partition._take_sent_on, "taken[1] == DUPLICATE", "False"),
    ),
    _broken(
        "not-published-again",
        "changes in outboxes are not published at a take-over",
        (Partition._publish_again, "again.append(self._change_item(key, sent))", "pass"),
    ),
    _broken(
        "assignments-not-told-again",
        "assignments are not published at a take-over",
        (Partition._publish_again, "await self._assign(group.current)", "pass"),
    ),
    _broken(
        "redis-not-told-again",
        "Redis is not told at a take-over",
        (Partition._publish_again, "self._shown(self._unforeseen()), group.pieces,", "self._shown(None), [],"),
    ),
    _broken(
        "published-ahead",
        "the checkpoint says `published` before it is",
        (
            Partition._write,
            "await self._append(group.states)",
            _PUBLISHED_AHEAD,
        ),
    ),
    _broken(
        "viewed-ahead",
        "the checkpoint says `viewed` before Redis knows",
        (Partition._write_checkpoint, "shown.assignments,", "self._published,"),
    ),
    _broken(
        "foreseen-ahead",
        "the checkpoint says `foreseen` before forecasts are told",
        (Partition._write_checkpoint, "shown.forecasts,", "self._published,"),
    ),
    _broken(
        "outbox-dropped-early",
        "loading drops outboxes that are published, though Redis does not know them",
        (Loaded._note, "min(checkpoint.published, checkpoint.viewed)", "checkpoint.published"),
        (Loaded._done, "min(self.published, self.viewed)", "self.published"),
        (Loaded._done, "min(self._ahead.published, self._ahead.viewed)", "self._ahead.published"),
    ),
    _broken(
        "misled-not-noticed",
        "loading trusts the last checkpoint, whosever it is, and drops what that says is done",
        (PartitionStore._load_all, "if each.misled]", "if False]"),
        covered="what a worker says is done was done while it had a lease, so it is true whosever the partition is by "
        "then; the step is for checkpoints that somebody deletes",
    ),
    _broken(
        "forecasts-not-refreshed",
        "whose forecast was not told before a take-over is not told after it",
        (Partition.open, "{key.decode(): mark for key in loaded.touched}", "{}"),
    ),
    _broken(
        "moved-forecasts-not-noted",
        "that an event has moved a forecast, and no segment, is not noted",
        (Partition._overtake, "self._ahead(profile) != told", "False"),
    ),
    _broken(
        "deadlines-not-rebuilt",
        "deadlines of stored customers are not expected",
        (
            Partition.open,
            "self.segmenter.expect(self.customers.load(loaded.states))",
            "self.customers.load(loaded.states)",
        ),
    ),
    _broken(
        "clock-not-restored",
        "the clock is not restored from the checkpoint",
        (
            Partition.open,
            "self.segmenter.clock = self._settled_clock = checkpoint.clock",
            "self._settled_clock = checkpoint.clock",
        ),
    ),
    _broken(
        "clock-from-states",
        "the clock starts at the greatest instant in any state",
        (
            Partition.open,
            "self.segmenter.clock = self._settled_clock = checkpoint.clock",
            _GREATEST,
        ),
    ),
    _broken(
        "clock-ahead",
        "the checkpoint holds the clock of what is only folded",
        (Partition._write_checkpoint, "self._settled_clock,", "self.segmenter.clock,"),
    ),
    _broken(
        "sources-ahead",
        "the checkpoint holds the offsets of what is only folded",
        (Partition._write_checkpoint, "self._settled_sources,", "dict(self._sources),"),
    ),
    _broken(
        "starts-at-committed",
        "reading starts at the committed offset, not at the checkpoint's",
        (Partition.open, "return self._sources", "return {}"),
    ),
    # Whose the partition is
    _broken(
        "no-fence",
        "no fence is written at a take-over",
        (Partition.fence, "await self._send(self._changelog", "-1 or (self._changelog"),
        (Partition.open, "if (loaded.epoch, loaded.fenced_at) != (self.customers.epoch, self._fence):", "if False:"),
    ),
    _broken(
        "fence-not-looked-for",
        "a take-over does not look whether somebody else's fence stands behind its own",
        (Partition.open, "if (loaded.epoch, loaded.fenced_at) != (self.customers.epoch, self._fence):", "if False:"),
        covered="the lease: of two workers with the same epoch one has none, and ends as it is told so, amid the "
        "take-over",
    ),
    _broken(
        "offsets-not-compared",
        "nobody looks whether somebody else has written to the changelog",
        (Partition._append, _SOMEBODY_ELSE, "if False:"),
    ),
    _broken(
        "stale-epochs-count",
        "records of a lower epoch count",
        (Loaded._valid, "return epoch == self.epoch", "return True"),
    ),
    _broken(
        "ownership-not-asked",
        "the worker does not ask whether it still owns the partition",
        (Partition._owned, "while not self._shell.owns(self.number):", "while False:"),
    ),
    _broken(
        "sends-amid-a-rebalance",
        "the worker goes on while the group gives its partitions out anew",
        (BatchConsumer.wait_empty, "self.app.kept = frozenset()", "pass"),
        (Partition._write, _STILL_OURS, "if False:"),
    ),
    _broken(
        "kept-amid-a-rebalance",
        "… it lets go of them only when it hears of the new generation",
        (BatchConsumer.wait_empty, "self.app.kept = frozenset()", "pass"),
    ),
    _broken(
        "ownership-asked-once",
        "… it does not ask between states and changes whether it still owns the partition",
        (Partition._write, _STILL_OURS, "if False:"),
    ),
    _broken(
        "kept-through-a-gap",
        "… and partitions are kept though the worker has missed a generation",
        (PartitionStore.on_rebalance, "if generation_id == self._generation + 1 else set()", ""),
        (Partition._append, _SOMEBODY_ELSE, "if False:"),
    ),
    _broken(
        "no-lease",
        "a worker sends without a lease",
        (vars(Lease)["valid"].fget, "return self.clock() - self._renewed < self._session_seconds", "return True"),
    ),
    _broken(
        "kicked-out-goes-on",
        "a worker that the group has forgotten goes on with what it was sending",
        (ShellApp.kicked_out, "(opening or sending or self.owner.writing)", "False"),
    ),
    _broken(
        "kicked-out-while-writing",
        "… with what it was about to send",
        (ShellApp.kicked_out, "(opening or sending or self.owner.writing)", "sending"),
    ),
    _broken(
        "shadows-not-rewritten",
        "states behind which a zombie has written are not written again",
        (Partition._complete, "for customer in shadowed:", "for customer in ():"),
    ),
    _broken(
        "shadows-not-loaded",
        "… those behind which one has written before the take-over are not",
        (Partition.open, "{key.decode() for key in loaded.shadowed}", "set()"),
    ),
    _broken(
        "told-without-owning",
        "forecasts are told though no record of the changelog has shown that the partition is still ours",
        (Partition._write, "elif group.current:", "elif False:"),
        covered="the lease: without one neither the record of the changelog nor the forecast is sent",
    ),
    _broken(
        "assignments-not-compared",
        "nobody looks whether somebody else has written to the topic of assignments",
        (CurrentTopic.appended, "if last + 1 == self._end + count:", "if True:"),
        (CurrentTopic.look, "if self._heard > self._end:", "if False:"),
    ),
    _broken(
        "appended-assignments-not-compared",
        "nobody looks where in the topic of assignments a record of theirs came to stand",
        (CurrentTopic.appended, "if last + 1 == self._end + count:", "if True:"),
    ),
    _broken(
        "idle-assignments-not-looked-at",
        "nobody asks where the topic of assignments ends when there is nothing to append",
        (CurrentTopic.look, "if self._heard > self._end:", "if False:"),
    ),
    _broken(
        "assignments-not-looked-at-when-taken-over",
        "a take-over does not look at what was written to the topic of assignments before it",
        (CurrentTopic.begin, "min(right, end) if right >= 0 else end", "end"),
    ),
    _broken(
        "assignments-right-too-soon",
        "the checkpoint says that assignments are right while customers are still to be told again",
        (CurrentTopic.right, "self._end if self._wrong_from is None else self._wrong_from", "self._end"),
    ),
    _broken(
        "idle-partitions-not-looked-at",
        "nobody appends to a partition where nothing happens, so nobody meets what a zombie wrote",
        (Partition._write_checkpoint, " or self._shell.monotonic() >= self._append_due", ""),
    ),
    # Redis
    _broken(
        "versions-not-compared",
        "Redis takes older assignments",
        (Data.move, "if version < stored:", "if False:"),
    ),
    _broken(
        "no-fence-in-redis",
        "Redis takes what is written by whoever had the partition before",
        (Data.move, "if epoch < self.epochs[partition]:", "if False:"),
    ),
    _broken(
        "whatever-comes",
        "Redis takes whatever comes",
        (Data.move, "if version < stored:", "if False:"),
        (Data.move, "if epoch < self.epochs[partition]:", "if False:"),
    ),
    _broken(
        "moves-counted-again",
        "Redis counts what it was told before",
        (Data.move, "if version > stored:", "if True:"),
        (Data.move, "if moved > stored:", "if True:"),
    ),
    _broken(
        "loss-not-noticed",
        "a Redis that has lost its data is not shown all customers again",
        (Partition._fill_view, "if not identity or", "if identity or not identity or"),
    ),
    _broken(
        "whole-ahead",
        "the checkpoint says that Redis knows all before it does",
        (Partition._write_checkpoint, "self._view.whole(self.number)", "self._view.identity"),
    ),
    _broken(
        "mark-not-compared",
        "a batch meant for one Redis is written to another",
        (Data.run, "if mark != self.mark:", "if False:"),
    ),
    _broken(
        "only-mark-compared",
        "a Redis that restarted from an old copy passes for the same",
        (Server.identify, 'str((await self._redis.info("server"))["run_id"])', '""'),
    ),
)

BY_NAME = {each.name: each for each in MUTATIONS}
