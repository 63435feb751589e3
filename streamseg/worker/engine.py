"""The kind of partition that applies events."""

from __future__ import annotations

import logging

from streamseg.core.definitions import Definitions
from streamseg.engine import Engine, choose
from streamseg.worker.partition import Partition

logger = logging.getLogger("streamseg.worker")


def kind_of_partition(definitions: Definitions, wanted: Engine) -> type[Partition]:
    """What folds the events. Raises NoEngineError if the compiled core is asked for and cannot."""
    choice = choose(definitions, wanted)
    if choice.plan is None:
        if choice.why_not:
            logger.info("events are applied in Python, not by the compiled core: %s", choice.why_not)
        return Partition
    from streamseg.worker.compiled import CompiledPartition

    return type("CompiledPartition", (CompiledPartition,), {"plan": choice.plan})
