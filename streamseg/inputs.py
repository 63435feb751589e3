"""Recorded events as lines of JSON, whatever the file: JSON lines, CSV or Parquet."""

from __future__ import annotations

import csv
import gzip
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, cast

import msgspec

from streamseg.core.errors import InputError
from streamseg.formats.event_json import MAX_BYTES
from streamseg.formats.messages import decode_json, encode_json

MAX_LINE = 1 << 20
"""Longer lines are no events; they are cut so that one cannot fill the memory."""
JSON_LINES, CSV, PARQUET = "jsonl", "csv", "parquet"
SUFFIXES = {".csv": CSV, ".parquet": PARQUET, ".pq": PARQUET}
"""Files with another end of the name hold JSON lines."""
REQUIRED = ("type", "customer_id", "time")
IDS = ("id", "customer_id", "order_id")
OBJECTS = ("props", "attributes")
FIELDS = frozenset({*REQUIRED, *IDS, *OBJECTS, "amount", "currency"})
ROWS = 8_192
"""Rows of Parquet in memory at a time."""


class NoParquetError(InputError):
    """What reads Parquet is not installed."""


def read_lines(events: Sequence[str], format: str | None = None) -> Iterator[bytes]:  # noqa: A002
    """The events of files one after the other, as JSON; `-` is standard input.

    Lines that are no events are among them. Raises InputError if a file cannot be read, and says where.
    """
    for name in events:
        kind = format or _format_of(name)
        if kind == PARQUET:
            yield from _parquet(name)
            continue
        with _opened(name) as file:
            yield from _csv(name, file) if kind == CSV else _json_lines(name, file)


def _format_of(name: str) -> str:
    return SUFFIXES.get(Path(name.lower().removesuffix(".gz")).suffix, JSON_LINES)


@contextmanager
def _opened(name: str) -> Iterator[IO[bytes]]:
    try:
        if name == "-":
            file: Any = nullcontext(sys.stdin.buffer)
        elif name.endswith(".gz"):
            file = gzip.open(name, "rb")  # noqa: SIM115 - closed below
        else:
            file = Path(name).open("rb", buffering=1 << 20)  # noqa: SIM115
    except OSError as error:
        raise _unreadable(name, error) from error
    with file as opened:
        yield cast(IO[bytes], opened)


def _unreadable(name: str, error: Exception, place: str = "") -> InputError:
    return InputError(f"events file {name}{place}: {getattr(error, 'strerror', None) or error}")


# JSON lines


def _json_lines(name: str, file: IO[bytes]) -> Iterator[bytes]:
    number = 0
    try:
        for number, line in enumerate(iter(partial(file.readline, MAX_LINE), b""), 1):  # noqa: B007 - named below
            if len(line) == MAX_LINE:
                _skip_line(file, line)
            yield line if len(line) <= MAX_BYTES else line.rstrip(b"\r\n")
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(name, error, f", after line {number}") from error


def _skip_line(file: IO[bytes], line: bytes) -> None:
    """Reads on to the end of a line that is too long."""
    while line and not line.endswith(b"\n"):
        line = file.readline(MAX_LINE)


# Tables


class _Table:
    """How the columns of a table become events: by the names of fields, and `props.<name>`, `attributes.<name>`."""

    def __init__(self, name: str, columns: Sequence[str]) -> None:
        missing = [each for each in REQUIRED if each not in columns]
        if missing:
            raise InputError(
                f"events file {name}: no column {' and no column '.join(missing)}; it has {', '.join(columns)}"
            )
        self.fields: list[tuple[int, str]] = []
        self.parts: dict[str, list[tuple[int, str]]] = {each: [] for each in OBJECTS}
        for place, column in enumerate(columns):
            parent, dot, key = column.partition(".")
            if column in FIELDS:
                self.fields.append((place, column))
            elif dot and parent in OBJECTS:
                self.parts[parent].append((place, key))
        for parent, parts in self.parts.items():
            if parts and parent in columns:
                raise InputError(f"events file {name}: has the column {parent} and {parent}.{parts[0][1]} too")

    @property
    def places(self) -> list[int]:
        """The columns that are used."""
        return [place for place, _ in (*self.fields, *self.parts["props"], *self.parts["attributes"])]

    def line(self, row: Sequence[Any]) -> bytes:
        """The event in a row, whose absent cells are None."""
        event = {name: row[place] for place, name in self.fields if row[place] is not None}
        for name, parts in self.parts.items():
            found = {key: row[place] for place, key in parts if row[place] is not None}
            if found:
                event[name] = found
        try:
            return encode_json(event)
        except UnicodeEncodeError:  # the decoder will reject it
            return json.dumps(event, ensure_ascii=False, default=str).encode("utf-8", "surrogateescape")


def _object(value: Any) -> Any:
    """An object that may stand there as JSON."""
    try:
        return decode_json(value) if isinstance(value, str) else value
    except (msgspec.DecodeError, ValueError, RecursionError):
        return value


# CSV

_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_NAMES: dict[str, Any] = {"true": True, "false": False}


def _scalar(cell: str) -> Any:
    """A property: a number, `true`, `false` or a quoted text as JSON writes it; anything else is a text as it is."""
    if cell in _NAMES:
        return _NAMES[cell]
    if _NUMBER.fullmatch(cell) is not None or cell[0] == '"':
        return _object(cell)
    return cell


def _time(cell: str) -> str | int:
    return int(cell) if cell.isdigit() and cell.isascii() and len(cell) < 18 else cell


def _cell_reader(column: str) -> Callable[[str], Any] | None:
    """What a cell is turned into; None if it stays a text."""
    if column == "time":
        return _time
    if column in OBJECTS:
        return _object
    return _scalar if column not in FIELDS else None


def _csv(name: str, file: IO[bytes]) -> Iterator[bytes]:
    csv.field_size_limit(MAX_LINE)
    text = TextIOWrapper(cast(Any, file), encoding="utf-8-sig", errors="surrogateescape", newline="")
    rows, number = csv.reader(text, strict=True), 0
    try:
        header = next(rows, None)
        if header is None:
            return
        table, width = _Table(name, header), len(header)
        readers = [(place, read) for place in table.places if (read := _cell_reader(header[place])) is not None]
        for number, row in enumerate(rows, 1):
            if row and len(row) != width:
                raise InputError(
                    f"events file {name}, row {number} (line {rows.line_num}): {len(row)} cells, but {width} columns"
                )
            cells: list[Any] = [cell or None for cell in row]
            for place, read in readers if row else ():
                if cells[place] is not None:
                    cells[place] = read(cells[place])
            yield table.line(cells) if row else b""
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise _unreadable(name, error, f", after row {number} (line {rows.line_num})") from error
    finally:
        text.detach()


# Parquet


def _parquet(name: str) -> Iterator[bytes]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise NoParquetError(f"events file {name}: to read Parquet, pip install 'streamseg[parquet]'") from error
    if name == "-":
        raise InputError("events file -: Parquet cannot come from standard input, for it begins at its end")
    number = 0
    try:
        with parquet.ParquetFile(name) as file:
            columns = file.schema_arrow.names
            kept = [columns[place] for place in sorted(_Table(name, columns).places)]
            table = _Table(name, kept)
            for batch in file.iter_batches(ROWS, columns=kept):
                cells = [_column(column, batch.column(column)) for column in kept]
                for row in zip(*cells, strict=True):
                    number += 1
                    yield table.line(row)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(name, error, f", after row {number}" if number else "") from error


def _column(name: str, column: Any) -> list[Any]:
    """The cells of a column as JSON can hold them."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if name == "time" and types.is_timestamp(kind):
        column = column.cast(pa.timestamp("ms", kind.tz), safe=False).cast(pa.int64())
    elif types.is_binary(kind) or (name in IDS and types.is_integer(kind)):
        column = column.cast(pa.string())
    elif types.is_decimal(kind):
        column = column.cast(pa.string() if name == "amount" else pa.float64())
    cells: list[Any] = column.to_pylist()
    if name in OBJECTS:
        return [_present(_object(cell)) for cell in cells]
    return cells


def _present(cell: Any) -> Any:
    """An object without the fields that are null; a map comes as its pairs."""
    if isinstance(cell, list):
        cell = dict(cell)
    return {key: value for key, value in cell.items() if value is not None} if isinstance(cell, dict) else cell
