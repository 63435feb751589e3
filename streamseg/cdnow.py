"""Real purchases to try streamseg on: CDNOW, an online music shop, 1997 to mid-1998.

23,570 customers who first bought in the first quarter of 1997, and all 69,659 purchases they made until the
end of June 1998. The data set (Fader and Hardie) comes with the `lifetimes` wheel; only its file is read, for
the package itself needs libraries that nothing here does.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from datetime import date
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from streamseg.core.errors import InputError
from streamseg.core.units import DAY, format_instant

PURCHASES = 69_659
CUSTOMERS = 23_570
FIRST_DAY, LAST_DAY = date(1997, 1, 1), date(1998, 6, 30)

_WHEEL = "lifetimes==0.11.3"
_FILE = "lifetimes/datasets/CDNOW_master.txt"
_SHA256 = "eff6889ed364c5199d6eacbbeb7a6d559971df4406ac876f322c373f00a072ef"
_REMEDY = f"install it with `make setup`, or `python -m pip install --no-deps --force-reinstall {_WHEEL}`"
_EPOCH = date(1970, 1, 1).toordinal()


class DatasetError(InputError):
    """The data set is missing or not the one expected; says how to get it."""


class Purchase(NamedTuple):
    """One row of the file."""

    row: int
    """Its number, from 1."""
    customer: str
    day: str
    """`yyyymmdd`."""
    cds: int
    dollars: str
    """Decimal, two places."""


def lines() -> Iterator[tuple[str, bytes]]:
    """Yield customer id (the record's key) and a purchase event as JSON, in order of time.

    The file knows days only: a day's purchases stand in the file's order, spread evenly over the day, so that
    times never go back. Raises DatasetError.
    """
    ordered = sorted(purchases(), key=_day)
    on_day = Counter(purchase.day for purchase in ordered)
    seen: Counter[str] = Counter()
    for purchase in ordered:
        day = purchase.day
        within = (2 * seen[day] + 1) * DAY // (2 * on_day[day])
        seen[day] += 1
        yield purchase.customer, _event(purchase, _midnight(day) + within)


def purchases() -> list[Purchase]:
    """Read the purchases in the file's order: by customer, then by day. Raises DatasetError."""
    rows = _text().splitlines()[1:]
    return [_purchase(number, row.split()) for number, row in enumerate(rows, start=1)]


def _day(purchase: Purchase) -> str:
    return purchase.day


def _purchase(number: int, fields: list[str]) -> Purchase:
    customer, day, cds, dollars = fields
    return Purchase(number, f"c{customer}", day, int(cds), dollars)


def _midnight(day: str) -> int:
    return (date.fromisoformat(day).toordinal() - _EPOCH) * DAY


def _event(purchase: Purchase, time: int) -> bytes:
    name = f"cdnow-{purchase.row}"
    return (
        f'{{"id":"{name}","type":"purchase","customer_id":"{purchase.customer}","time":"{format_instant(time)}",'
        f'"order_id":"{name}","amount":"{purchase.dollars}","currency":"USD","props":{{"cds":{purchase.cds}}}}}'
    ).encode()


def _text() -> str:
    path = _path()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"the CDNOW data set is not at {path}: {_REMEDY}") from error
    if hashlib.sha256(content).hexdigest() != _SHA256:
        raise DatasetError(f"{path} is not the CDNOW data set of {_WHEEL} (its checksum differs): {_REMEDY}")
    return content.decode("ascii")


def _path() -> Path:
    try:
        return Path(str(distribution("lifetimes").locate_file(_FILE)))
    except PackageNotFoundError as error:
        raise DatasetError(f"the CDNOW data set is not installed: {_REMEDY}") from error
