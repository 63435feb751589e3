"""The worker put together: settings to a running process."""

from __future__ import annotations

import asyncio
import gc

from streamseg.formats.definitions_yaml import read_definitions
from streamseg.worker import memory
from streamseg.worker.app import ShellSettings, build_app, run
from streamseg.worker.keeper import Keeper
from streamseg.worker.settings import MAX_RECORD_BYTES, Settings
from streamseg.worker.topics import prepare


def run_worker(settings: Settings) -> int:
    """Runs a worker until it is told to stop; returns the exit code."""
    memory.bound()
    definitions = read_definitions(settings.definitions)
    partitions = asyncio.run(prepare(settings.kafka, settings.events, settings.names, settings.group))
    keeper = Keeper(definitions, settings)
    shell = ShellSettings(
        kafka=settings.kafka,
        event_topics=settings.sources,
        group=settings.group,
        changelog_topic=settings.names.changelog(settings.group),
        partitions=partitions,
        data_dir=settings.data,
        compiled=keeper.compiled,
        log_level=settings.log_level,
        max_record_bytes=MAX_RECORD_BYTES,
    )
    # States have no cycles, and there are many of them: look through the young ones seldom. (Python looks through the
    # old ones only when they have become a quarter more.)
    gc.set_threshold(50_000, 20, 10)
    app = build_app(shell, keeper)
    keeper.shell = app.shell
    return run(app)
