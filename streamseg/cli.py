"""The command line: arguments to settings, errors to exit codes. What commands do stands in their modules."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from streamseg import __version__
from streamseg.core.errors import InputError, StreamsegError
from streamseg.core.units import Duration, Instant, check_instant, parse_duration, parse_instant
from streamseg.formats.rejection import REASONS

Command = TypeVar("Command", bound=Callable[..., Any])
VARIABLE_PREFIX = "STREAMSEG_"
DEFAULT_HTTP = "127.0.0.1:8077"


def option(*names: str, **settings: Any) -> Callable[[Command], Command]:
    """An option that can come from the environment too: `--http` from STREAMSEG_HTTP; `--help` says so."""
    name = next(name for name in names if name.startswith("--")).removeprefix("--").split("/")[0]
    variable = VARIABLE_PREFIX + name.replace("-", "_").upper()
    return click.option(*names, envvar=variable, show_envvar=True, show_default=True, **settings)


class InstantType(click.ParamType):
    """An RFC 3339 time, or milliseconds since 1970."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Instant:
        """The instant of a text."""
        try:
            return check_instant(int(value)) if str(value).isdigit() else parse_instant(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class AddressType(click.ParamType):
    """HOST:PORT."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Host and port of a text."""
        if isinstance(value, tuple):
            return value
        host, colon, port = str(value).rpartition(":")
        if not colon or not host or not port.isdigit() or int(port) > 65_535:
            self.fail(f"{value!r} is no HOST:PORT", param, ctx)
        return host.strip("[]"), int(port)


class DurationType(click.ParamType):
    """A duration, as in definitions: a whole number and one of ms s m h d w."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Duration:
        """The milliseconds of a text."""
        if isinstance(value, int):
            return value
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class ListType(click.ParamType):
    """Names with commas between."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """The names in a text."""
        if isinstance(value, tuple):
            return value
        names = tuple(name.strip() for name in str(value).split(",") if name.strip())
        if not names:
            self.fail("give at least one", param, ctx)
        return names


definitions_option = option(
    "--definitions", type=click.Path(path_type=Path), required=True, help="The definitions file (YAML)."
)
kafka_option = option("--kafka", type=ListType(), metavar="HOST:PORT[,…]", required=True, help="Brokers to begin with.")
redis_option = option("--redis", metavar="URL", required=True, help="Redis, as redis://host:port/0.")
events_option = option(
    "--events", type=ListType(), metavar="TOPIC[,…]", required=True, help="Topics the events come from."
)
group_option = option("--group", default="streamseg", help="Consumer group; its workers share the partitions.")
keys_option = option(
    "--keys",
    type=click.Choice(["rekey", "trust", "reject"]),
    default="rekey",
    help="Events in the wrong partition, or under another key: send them on, rely on the producers, or reject them.",
)
engine_option = option(
    "--engine",
    type=click.Choice(["auto", "compiled", "python"]),
    default="auto",
    help="What applies events: the compiled core, where it can, or Python.",
)
prefix_option = option("--prefix", default="streamseg", help="Stands before our own topics (P.) and Redis keys (P:).")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="streamseg")
def cli() -> None:
    """Real-time customer segmentation on Kafka.

    Exit codes: 0 done, 1 the input or definitions are wrong, 2 usage, 70 a fault of ours, 75 try again.
    """


@cli.command()
@option("--source", type=click.Choice(["cdnow", "synthetic"]), default="cdnow", help="Real purchases, or made up.")
@option("--seconds", type=click.FloatRange(0), default=45.0, help="How long to feed events; 0: as fast as possible.")
@option("--kill", is_flag=True, help="Kill the worker (kill -9) in the middle, to show that nothing is lost.")
@option("--keep", is_flag=True, help="Leave everything running until Ctrl-C, to look around.")
def demo(source: str, seconds: float, kill: bool, keep: bool) -> None:
    """Show the whole thing on this machine, and check it: Kafka, Redis, a worker, real purchases.

    It takes a minute and a half. STREAMSEG_KAFKA (host:port) and STREAMSEG_REDIS (a URL) name ones that run already.
    """
    from streamseg.demo import Options, run_demo

    sys.exit(run_demo(Options(source=source, seconds=seconds, kill=kill, keep=keep)))


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Validate a definitions FILE: every problem with its line, column and a hint."""
    from streamseg.formats.definitions_yaml import read_definitions

    definitions = read_definitions(file)
    segments = sum(len(compiled.scheme.names) for compiled in definitions.schemes)
    schemes = len(definitions.schemes)
    click.echo(f"{file}: {schemes} scheme{'s' * (schemes != 1)}, {segments} segments, {definitions.hash}")


@cli.command()
@definitions_option
@option("--changes", type=click.Path(path_type=Path), metavar="OUT", help="Write changes here, as JSON lines.")
@option("--assignments", type=click.Path(path_type=Path), metavar="OUT", help="Write last assignments here.")
@option("--rejects", type=click.Path(path_type=Path), metavar="OUT", help="Write rejected lines here.")
@option("--until", type=InstantType(), help="Move the clock to this time at the end.")
@option(
    "--format", type=click.Choice(["jsonl", "csv", "parquet"]), help="Of all EVENTS. [default: by the end of the name]"
)
@option("--jobs", type=click.IntRange(1), help="Processes. [default: one a core; 1 for fewer than 50,000 events]")
@engine_option
@click.argument("events", nargs=-1, required=True)
def replay(
    definitions: Path, changes: Path | None, assignments: Path | None, rejects: Path | None, until: Instant | None,
    format: str | None, jobs: int | None, engine: str, events: tuple[str, ...],  # noqa: A002
) -> None:  # fmt: skip
    """Evaluate recorded EVENTS without Kafka: files of JSON lines, CSV (also .gz) or Parquet; - is standard input.

    What is written is the same for any number of --jobs and for any --engine.
    """
    from streamseg.engine import Engine
    from streamseg.recording import replay_files

    replay_files(
        definitions, events, changes, assignments, rejects, until, format=format, jobs=jobs, engine=Engine(engine)
    )


@cli.command()
@definitions_option
@kafka_option
@redis_option
@events_option
@group_option
@prefix_option
@option(
    "--clock",
    type=click.Choice(["wall", "stream"]),
    default="wall",
    help="What moves time: now, or events alone.",
)
@keys_option
@option("--http", type=AddressType(), default=DEFAULT_HTTP, help="Where /metrics, /livez and /readyz listen.")
@option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path(".streamseg/data"),
    help="The worker's own folder.",
)
@option(
    "--store",
    type=click.Choice(["memory", "rocksdict"]),
    default="memory",
    help="Where customers are kept: in memory, or in RocksDB under --data.",
)
@engine_option
@option(
    "--max-rejected",
    type=click.FloatRange(0, 1),
    default=0.5,
    metavar="RATIO",
    help="Stop when more than this share of a partition's last 10,000 events was rejected; 1: never.",
)
@option(
    "--max-rejected-run",
    type=click.IntRange(0),
    default=5_000,
    metavar="EVENTS",
    help="Stop when more than so many events of a partition in a row were rejected; 0: never.",
)
@option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]),
    default="INFO",
    help="How much to log.",
)
def worker(
    definitions: Path, kafka: tuple[str, ...], redis: str, events: tuple[str, ...], group: str, prefix: str, clock: str,
    http: tuple[str, int], data: Path, store: str, engine: str, keys: str, max_rejected: float,
    max_rejected_run: int, log_level: str,
) -> None:  # fmt: skip
    """Run a worker: it takes its share of the group's partitions until it is told to stop (SIGTERM)."""
    for number in (signal.SIGTERM, signal.SIGINT):  # until Faust has handlers of its own
        signal.signal(number, lambda *_: sys.exit(0))
    from streamseg.engine import Engine
    from streamseg.worker.main import run_worker
    from streamseg.worker.settings import Clock, Keys, Names, Settings, Store
    from streamseg.worker.tolerance import Tolerance

    settings = Settings(
        definitions=definitions, kafka=kafka, redis=redis, events=events, group=group, names=Names(prefix),
        clock=Clock(clock), http_host=http[0], http_port=http[1], data=data, store=Store(store), engine=Engine(engine),
        log_level=log_level, keys=Keys(keys), tolerance=Tolerance(max_rejected, max_rejected_run),
    )  # fmt: skip
    sys.exit(run_worker(settings))


@cli.command()
@kafka_option
@events_option
@group_option
@prefix_option
@click.option("--verify", is_flag=True, help="Create nothing, only verify.")
def topics(kafka: tuple[str, ...], events: tuple[str, ...], group: str, prefix: str, verify: bool) -> None:
    """Create our own topics, or verify them; refuses wrong partitions and policies."""
    import asyncio

    from streamseg.worker.settings import Names
    from streamseg.worker.topics import own_topics, prepare

    names = Names(prefix)
    partitions = asyncio.run(prepare(kafka, events, names, group, create=not verify))
    for topic in own_topics(names, group):
        click.echo(f"{topic.name}: {partitions} partitions, {topic.required['cleanup.policy']}")


@cli.command()
@kafka_option
@events_option
@group_option
@prefix_option
@keys_option
@click.option("--records", type=click.IntRange(1), default=1_000, show_default=True, help="Looked at, per partition.")
def doctor(
    kafka: tuple[str, ...], events: tuple[str, ...], group: str, prefix: str, keys: str, records: int
) -> None:  # fmt: skip
    """Examine the topics of an installation, and how producers key and partition their latest events.

    Exit code 1 if there is a problem for workers with these --keys.
    """
    from streamseg.doctor import examine, report
    from streamseg.worker.settings import Keys, Names

    sys.exit(report(examine(kafka, events, Names(prefix), group, Keys(keys), records)))


kafka_or_none_option = option("--kafka", type=ListType(), metavar="HOST:PORT[,…]", help="Brokers to begin with.")


@cli.command()
@click.argument("customer")
@click.argument("events", nargs=-1)
@definitions_option
@kafka_or_none_option
@group_option
@prefix_option
@option("--replay", "replayed", multiple=True, metavar="EVENTS…", help="Read these files of events instead of Kafka.")
@option("--until", type=InstantType(), help="With --replay: move the clock to this time at the end.")
@option("--at", type=InstantType(), help="Explain at this time. [default: now; with --replay its clock]")
@option("--json", is_flag=True, help="Write one line of JSON.")
def explain(
    customer: str, events: tuple[str, ...], definitions: Path, kafka: tuple[str, ...] | None, group: str, prefix: str,
    replayed: tuple[str, ...], until: Instant | None, at: Instant | None, json: bool,
) -> None:  # fmt: skip
    """Why CUSTOMER is in its segments: every condition with value, threshold and margin, and what comes next.

    The state is read from the changelog of a group of workers (--kafka), or made by a replay (--replay EVENTS…).
    """
    from rich.console import Console

    from streamseg import explain as explained
    from streamseg.formats.definitions_yaml import read_definitions
    from streamseg.worker.settings import Names

    if events and not replayed:
        raise click.UsageError(f"unexpected {events[0]!r}: files of events stand behind --replay")
    if not replayed and not kafka:
        raise click.UsageError("give --kafka HOST:PORT, or --replay EVENTS…")
    compiled = read_definitions(definitions)
    if replayed:
        known = explained.replay_profile(compiled, customer, (*replayed, *events), until, at)
    else:
        known = explained.read_profile(compiled, customer, kafka or (), Names(prefix), group, at)
    explanation = explained.explain(compiled, known)
    if json:
        click.echo(explained.explanation_data(explanation))
    else:
        explained.show(explanation, Console())


@cli.command("rebuild-redis")
@redis_option
@prefix_option
def rebuild_redis(redis: str, prefix: str) -> None:
    """Delete the view in Redis; the workers show all customers again. Safe while they run."""
    from streamseg.rebuild import rebuild
    from streamseg.worker.settings import Names

    deleted = rebuild(redis, Names(prefix))
    click.echo(f"deleted {deleted:,} customers and their counters; the workers show all customers again")


@cli.command()
@kafka_option
@prefix_option
@option("--from-beginning", is_flag=True, help="Begin with the oldest change there is, not with the next one.")
@option("--scheme", help="Only changes of this scheme.")
@option("--customer", help="Only changes of this customer.")
@option("--max", type=click.IntRange(1), help="End after so many changes.")
@option("--json", is_flag=True, help="Write the changes as JSON lines.")
def tail(
    kafka: tuple[str, ...], prefix: str, from_beginning: bool, scheme: str | None, customer: str | None,
    max: int | None, json: bool,  # noqa: A002
) -> None:  # fmt: skip
    """Show changes as they happen, until Ctrl-C: time, customer, scheme, from → to, why, and what decided."""
    from streamseg import tail as tailing
    from streamseg.worker.settings import Names

    wanted = tailing.Wanted(from_beginning=from_beginning, scheme=scheme, customer=customer, max=max)
    tailing.tail(kafka, Names(prefix).changes, wanted, json=json)


@cli.command("dead-letters")
@kafka_option
@prefix_option
@click.option(
    "--reason",
    "reasons",
    multiple=True,
    type=click.Choice(sorted(REASONS)),
    metavar="REASON",
    help="Only of this reason; may be repeated.",
)
@click.option("--since", type=DurationType(), help="Only those written within this time, such as 1h.")
@click.option("--max", type=click.IntRange(1), help="Only the latest, so many. [default: lists 20, sends all]")
@click.option("--json", is_flag=True, help="Write them as JSON lines, whole, without the summary.")
@click.option("--resubmit", is_flag=True, help="Send these events again, to the topics they came from.")
@click.option("--to", "target", metavar="TOPIC", help="With --resubmit: send them to this topic instead.")
@click.option("--yes", is_flag=True, help="With --resubmit: do not ask.")
def dead_letters(
    kafka: tuple[str, ...], prefix: str, reasons: tuple[str, ...], since: Duration | None,
    max: int | None, json: bool, resubmit: bool, target: str | None, yes: bool,  # noqa: A002
) -> None:  # fmt: skip
    """List rejected events: when, why, where they stood, how they begin; and how to mend each reason.

    With --resubmit they are sent again: the same bytes and keys, with a header that says so.
    """
    from streamseg import dead_letters as letters
    from streamseg.worker.settings import Names

    if json and resubmit:
        raise click.UsageError("--json lists, --resubmit sends: give one of them")
    if (target is not None or yes) and not resubmit:
        raise click.UsageError("--to and --yes belong to --resubmit: give it too")
    wanted = letters.Wanted(reasons=frozenset(reasons), since=since, max=max)
    topic = Names(prefix).dead_letters
    if resubmit:
        letters.resubmit(kafka, topic, wanted, target, lambda question: yes or click.confirm(question, abort=True))
    elif json:
        letters.write_json(kafka, topic, wanted)
    else:
        letters.show(kafka, topic, wanted)


@cli.command()
@click.option("--events", type=click.IntRange(1), help="How many events. [default: 1000000; to Kafka: until stopped]")
@option("--customers", type=click.IntRange(1), help="How many. [default: 50000, or a twentieth of the events]")
@option("--seed", type=int, default=1, help="The same seed and settings give the same events.")
@option("--span", type=DurationType(), default="90d", help="How long the history is, about.")
@option("--start", type=InstantType(), help="When it begins. [default: 2026-01-01; to Kafka: --span before now]")
@option("--late-ratio", type=click.FloatRange(0, 0.5), default=0.01, help="Share of events that arrive late.")
@option("--duplicate-ratio", type=click.FloatRange(0, 0.5), default=0.01, help="Share of events that come again.")
@option("--malformed-ratio", type=click.FloatRange(0, 0.5), default=0.001, help="Share of lines that are no events.")
@option("--currency", default="USD", help="Of all amounts.")
@option("--output", default="-", metavar="FILE|-", help="Where JSON lines go; .gz is compressed.")
@kafka_or_none_option
@option("--topic", help="Produce to this topic of --kafka instead, keyed by customer.")
@option("--partitions", type=click.IntRange(1), help="Create the topic with so many partitions if it is missing.")
@option("--rate", type=click.FloatRange(0, min_open=True), help="Events a second. [default: no limit; live: 100]")
def generate(
    events: int | None, customers: int | None, seed: int, span: Duration, start: Instant | None, late_ratio: float,
    duplicate_ratio: float, malformed_ratio: float, currency: str, output: str, kafka: tuple[str, ...] | None,
    topic: str | None, partitions: int | None, rate: float | None,
) -> None:  # fmt: skip
    """Make up the events of a shop: JSON lines, or live traffic to Kafka.

    With --topic and without --events it goes on until it is stopped, and the events are of now.
    """
    from streamseg import generate as generating

    settings = generating.Traffic(
        events=events, customers=customers or generating.customers_for(events), seed=seed, span=span, start=start,
        late_ratio=late_ratio,
        duplicate_ratio=duplicate_ratio, malformed_ratio=malformed_ratio, currency=currency,
    )  # fmt: skip
    context = click.get_current_context()
    given = context.get_parameter_source("kafka") is click.core.ParameterSource.COMMANDLINE
    if topic is None and (given or partitions is not None):
        raise click.UsageError("give --topic too: the topic to produce to")
    if topic is None:
        generating.write_file(settings, output, rate)
    elif not kafka:
        raise click.UsageError("give --kafka HOST:PORT too: the brokers of the topic")
    else:
        generating.produce(settings, kafka, topic, partitions, rate)


def environment_variables() -> frozenset[str]:
    """All environment variables that any command reads."""
    found = set()
    for command in cli.commands.values():
        for parameter in command.params:
            if isinstance(parameter.envvar, str):
                found.add(parameter.envvar)
    return frozenset(found)


def _refuse_unknown_variables() -> None:
    known = environment_variables()
    for name in sorted(os.environ):
        if name.startswith(VARIABLE_PREFIX) and name not in known:
            from streamseg.core.expression import suggest

            hint = suggest(name, known) or f"known: {', '.join(sorted(known))}"
            raise InputError(f"environment variable {name} is not known: {hint}")


def main() -> None:
    """The entry point: runs a command, and turns errors into one message and an exit code."""
    try:
        _refuse_unknown_variables()
        cli(prog_name="streamseg")
    except StreamsegError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
    except Exception:  # noqa: BLE001 - the last resort: the exit code tells that it is a fault of ours
        import traceback

        traceback.print_exc()
        click.echo("streamseg: this is a fault of ours; please report it with the lines above", err=True)
        sys.exit(70)
