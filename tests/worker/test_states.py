"""Where customers are kept, in memory or on disk, gives back what it was given, and nothing once it is dropped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from streamseg.core.errors import InputError, TryAgainError
from streamseg.worker.rocks_states import RocksFolder
from streamseg.worker.states import States

CUSTOMERS = {f"kunde-\N{SNOWMAN}-{number}".encode(): bytes([number % 256]) * number for number in range(1, 2_000)}


def test_every_customer_is_found_again_with_the_last_state_that_was_put(states: States) -> None:
    states.put(CUSTOMERS)
    newer = dict.fromkeys(list(CUSTOMERS)[::3], b"newer")
    states.put(newer)
    wanted = CUSTOMERS | newer
    assert {key: states.get(key) for key in CUSTOMERS} == wanted
    assert dict(states.items()) == wanted
    assert set(states) == set(wanted)


def test_a_customer_nobody_put_is_unknown(states: States) -> None:
    states.put(CUSTOMERS)
    assert states.get(b"nobody") is None


def test_a_customer_who_was_deleted_is_unknown_until_put_again(states: States) -> None:
    states.put({b"ada": b"1", b"bob": b"2"})
    states.delete(b"ada")
    states.delete(b"nobody")
    assert states.get(b"ada") is None
    assert list(states) == [b"bob"]
    states.put({b"ada": b"3"})
    assert states.get(b"ada") == b"3"


def test_whoever_goes_through_the_customers_is_not_disturbed_by_those_who_come_meanwhile(states: States) -> None:
    states.put({b"ada": b"1", b"zoe": b"2"})
    seen = []
    for key in states:
        seen.append(key)
        states.put({b"bob": b"3", key: b"4"})
    assert seen == [b"ada", b"zoe"]


def test_a_place_that_is_dropped_has_nobody_any_more_when_the_partition_comes_back(tmp_path: Path) -> None:
    folder = RocksFolder(tmp_path / "states")
    lost = folder.open(3)
    lost.put(CUSTOMERS)
    going_through = iter(lost)
    assert next(going_through)
    lost.drop()
    assert [each.name for each in (tmp_path / "states").iterdir()] == ["lock"]
    assert list(folder.open(3)) == []


def test_what_a_killed_worker_left_on_disk_is_deleted_when_the_next_one_starts(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from streamseg.worker.rocks_states import RocksFolder;"
        "RocksFolder(pathlib.Path(sys.argv[1])).open(3).put({b'ada': b'1'}); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -9
    assert len(list(tmp_path.iterdir())) == 2
    folder = RocksFolder(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["lock"]
    assert list(folder.open(3)) == []


def test_a_second_worker_is_told_that_the_folder_is_in_use_and_deletes_nothing(tmp_path: Path) -> None:
    place = RocksFolder(tmp_path).open(3)
    place.put({b"ada": b"1"})
    with pytest.raises(TryAgainError, match="its own --data"):
        RocksFolder(tmp_path)
    place.put({b"bob": b"2"})
    assert set(place) == {b"ada", b"bob"}


def test_a_folder_that_cannot_be_used_is_an_error_of_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="correct --data"):
        RocksFolder(tmp_path / "file" / "states")
