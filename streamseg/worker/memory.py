"""The memory of the process, as the C library holds it."""

from __future__ import annotations

import ctypes
import gc


def give_back() -> None:
    """Gives what is free back to the system: glibc would keep the buffers of a load for the rest of the worker's life.

    Takes some tens of milliseconds. Does nothing with another C library.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
