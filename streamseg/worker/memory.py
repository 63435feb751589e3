"""The memory of the process, as the C library holds it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable

LARGE_BYTES = 1 << 20
"""From this size on a buffer is the system's own again as soon as it is free; what is fetched is larger, mostly. Below
it memory is used again: a batch to be sent takes no new pages."""
KEPT_BYTES = 8 << 20
"""So much may be free at the end of the heap, until it is given back."""
_THP_DISABLE = 41
"""A call of `prctl` (linux/prctl.h)."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Names of glibc's settings (malloc.h)."""
YOUNG, OLD = 1, 2
"""Generations of objects: those that came lately, and all."""


def bound() -> None:
    """Keeps glibc from keeping memory, and Linux from giving pages of 2 MB; to be called before there are threads.

    Left to itself, glibc puts the buffers of fetches into the heap, among what stays, once the first of them has been
    freed (it raises the size from which it does not), and has one heap for each thread: a worker would go on growing
    for hours. What the core allocates comes and goes; to clear huge pages for it took a tenth of a worker's CPU, and
    they stay whole where little is in use. Does nothing with another C library, or another system.
    """
    library = ctypes.CDLL(None)
    set_option = getattr(library, "mallopt", None)
    if set_option is not None:
        for option, value in ((_MMAP_THRESHOLD, LARGE_BYTES), (_TRIM_THRESHOLD, KEPT_BYTES), (_ARENA_MAX, 1)):
            set_option(option, value)
    control = getattr(library, "prctl", None)
    if control is not None:
        control(_THP_DISABLE, 1, 0, 0, 0)


def give_back(oldest: int = OLD) -> None:
    """Gives what is free back to the system, and what hangs in cycles of up to a generation (of `gc`).

    Takes some tens of milliseconds if that is the oldest; if not, next to nothing, and some 20 milliseconds for each
    gigabyte that the C library holds. What is there after a look at the oldest is looked at again only by the next
    such one: what Faust is made of takes some tens of milliseconds, in which no event goes on.
    """
    if oldest == OLD:
        gc.unfreeze()
    gc.collect(oldest)
    if oldest == OLD:
        gc.freeze()
    if _malloc_trim is not None:
        _malloc_trim(0)


_malloc_trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
