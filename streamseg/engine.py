"""What applies events: the compiled core, where it is there and has words for the definitions, or Python."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from streamseg.core.definitions import Definitions
from streamseg.core.errors import InputError
from streamseg.formats.native_plan import UnsupportedError, plan


class Engine(StrEnum):
    """What applies events."""

    AUTO = "auto"
    """The compiled core, where it is installed and has words for the definitions; else Python."""
    COMPILED = "compiled"
    PYTHON = "python"


class NoEngineError(InputError):
    """The compiled core was asked for, and cannot do it."""


class Choice(NamedTuple):
    """What will apply events."""

    plan: bytes | None
    """The definitions for the compiled core; None if Python applies them."""
    why_not: str = ""
    """Why the compiled core cannot."""


def choose(definitions: Definitions, wanted: Engine) -> Choice:
    """What applies these definitions. Raises NoEngineError if the compiled core is asked for and cannot."""
    if wanted is Engine.PYTHON:
        return Choice(None)
    try:
        import streamseg_engine  # noqa: F401

        return Choice(plan(definitions))
    except (ImportError, UnsupportedError) as error:
        why = "it is not installed" if isinstance(error, ImportError) else f"the definitions use {error}"
        if wanted is Engine.COMPILED:
            raise NoEngineError(f"--engine compiled cannot be: {why}") from error
        return Choice(None, why)
