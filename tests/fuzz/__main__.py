"""`make fuzz`: the oracles on inputs that are made by what they reach in the code, with atheris.

python -m tests.fuzz --target event --seconds 60
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

TARGETS = ("event", "definitions", "state")
LONGEST = {"event": 4_096, "definitions": 8_192, "state": 2_048}
"""Bytes; what is larger is slower, and reaches nothing more."""


@click.command()
@click.option("--target", type=click.Choice(TARGETS), help="One of them; all without it.")
@click.option("--seconds", type=click.IntRange(1), default=60, show_default=True, help="For each target.")
@click.option("--seed", default=1, show_default=True)
@click.option("--directory", type=click.Path(path_type=Path), help="Keep what was found interesting here.")
def main(target: str | None, seconds: int, seed: int, directory: Path | None) -> None:
    """Fuzz, and end with 1 and the bytes if an oracle did not hold."""
    if target is not None:
        place = directory or Path(tempfile.mkdtemp(prefix="streamseg-fuzz-"))
        fuzz(target, seconds, seed, place / target)
    options = ["--seconds", str(seconds), "--seed", str(seed), *(["--directory", str(directory)] if directory else [])]
    codes = [subprocess.call([sys.executable, "-m", "tests.fuzz", "--target", each, *options]) for each in TARGETS]
    sys.exit(max(map(abs, codes)))


def fuzz(target: str, seconds: int, seed: int, corpus: Path) -> None:
    """Fuzz one target until the time is over; ends the process."""
    try:
        import atheris
    except ImportError:
        sys.exit("there is no atheris for this Python, only for 3.11 to 3.13: make clean fuzz PYTHON=python3.13")
    with atheris.instrument_imports(include=["streamseg"]):
        from tests.fuzz import oracles
    corpus.mkdir(parents=True, exist_ok=True)
    for number, each in enumerate(seeds(target)):
        if len(each) <= LONGEST[target]:
            (corpus / f"seed-{number}").write_bytes(each)
    words = corpus.with_suffix(".words")
    words.write_text("\n".join(f'"{word}"' for word in dictionary(target)))
    arguments = [
        f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={LONGEST[target]}", f"-dict={words}", "-timeout=10",
        "-rss_limit_mb=2048", "-print_final_stats=1", "-verbosity=0", f"-artifact_prefix={corpus.parent}/", str(corpus),
    ]  # fmt: skip
    click.echo(f"{target}: {len(list(corpus.iterdir()))} seeds, {seconds} s, in {corpus.parent}", err=True)
    oracle = oracles.ORACLES[target]

    def test_one(data: bytes) -> None:
        oracle(data)

    atheris.Setup([sys.argv[0], *arguments], test_one, enable_python_coverage=True)
    atheris.Fuzz()
    os._exit(0)


def seeds(target: str) -> Iterator[bytes]:
    """Inputs to begin with, all that the tests have."""
    from tests.fuzz import oracles
    from tests.properties.hand_written import DEFINITIONS
    from tests.worker.bad_records import bad_records, odd_events
    from tests.worker.running_worker import EVERY_FEATURE, STARTER

    if target == "event":
        yield from oracles.EVENTS
        yield from (each.record.value or b"" for each in bad_records(oracles.NOW))
        yield from (each.value or b"" for some in odd_events(oracles.NOW).values() for each in some)
    elif target == "definitions":
        yield from (text.encode() for text in [EVERY_FEATURE.read_text(), STARTER.read_text(), *DEFINITIONS])
        yield b"version: 1\ncurrency: EUR\nschemes: {s: {default: d, segments: [{name: a, when: since(any) > 1d}]}}\n"
    else:
        yield from oracles.stored_states()


def dictionary(target: str) -> list[str]:
    """Words that inputs are made of, escaped as libFuzzer wants them."""
    from streamseg.core.expression import FUNCTIONS, KEYWORDS
    from streamseg.formats import definitions_yaml, event_json

    if target == "event":
        fields = event_json._Wire.__struct_fields__
        return [rf"\"{name}\":" for name in fields] + [
            "purchase",
            "refund",
            "profile",
            "null",
            "1e30",
            r"\\ud800",
        ]
    if target == "definitions":
        keys = {*definitions_yaml._TOP, *definitions_yaml._SEGMENT, *definitions_yaml._SCHEME, *definitions_yaml._RFM}
        return sorted({*keys, *FUNCTIONS, *KEYWORDS, " where ", "all", "30d", ">=", "purchase.amount", "- name: a"})
    return [r"\x00\x00\x00\x02", r"\xc0", r"\x9f", r"\xdc\x00\x0f", r"\xc7\x04\x01" + "1/0"]


if __name__ == "__main__":
    main()
