"""How the worker ends when something in it fails: at once, nothing acknowledged, everything replayed."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from streamseg.core.errors import StreamsegError

logger = logging.getLogger("streamseg.worker")


def die(what: str, error: BaseException) -> NoReturn:
    """End the process now, with one line that says why.

    Exit code: that of a StreamsegError, else 70. Nothing is flushed or committed: what was not acknowledged
    is read again by the next worker. The traceback is logged at DEBUG.
    """
    known = isinstance(error, StreamsegError)
    logger.critical("worker stops, %s failed: %s", what, error if known else f"{error!r} {_place(error)}")
    logger.debug("where it came from", exc_info=error)
    for handler in logging.getLogger().handlers:
        handler.flush()
    os._exit(error.exit_code if isinstance(error, StreamsegError) else 70)


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"at {frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""


@contextmanager
def fatal(what: str) -> Iterator[None]:
    """End the process when the block raises; Faust and aiokafka would log it in places and go on."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 (whatever it is, going on would lose events)
        die(what, error)
