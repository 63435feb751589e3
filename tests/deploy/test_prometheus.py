"""What only Prometheus itself can say, where its programs are installed (Debian: the package `prometheus`).

Without them these tests do not exist, and the parser's tests of test_rules.py and test_dashboard.py remain.
With CI_REQUIRE_PROMTOOL=1 in the environment their absence is an error.
"""

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest

from streamseg.services.service import free_port
from tests.deploy.deployment import DEPLOY, RULES, Query, annotation_queries, panel_queries

MISSING = [program for program in ("promtool", "prometheus") if shutil.which(program) is None]
if MISSING and os.environ.get("CI_REQUIRE_PROMTOOL") == "1":
    raise RuntimeError(f"{' and '.join(MISSING)} not on PATH, but CI_REQUIRE_PROMTOOL=1: apt-get install prometheus")

#: When the recorded hour begins and ends, in seconds since the epoch, and the time between two samples.
BEGIN, END, STEP = 1_790_000_000, 1_790_003_600, 60
#: Series of one worker over that hour: its value at the beginning and by how much it grows each minute.
CHANGES = 'streamseg_segment_changes_total{scheme="value",reason="event"'
SERIES: dict[str, tuple[float, float]] = {
    "up{": (1, 0),
    'streamseg_events_total{topic="events",type_class="purchase",result="applied"': (0, 6000),
    'streamseg_dead_letters_total{reason="not_json"': (0, 6),
    'streamseg_rekeyed_events_total{topic="events",why="missing"': (0, 6),
    'streamseg_batch_seconds_bucket{le="0.1"': (0, 500),
    'streamseg_batch_seconds_bucket{le="+Inf"': (0, 600),
    'streamseg_event_lag_seconds_bucket{le="0.1"': (0, 5000),
    'streamseg_event_lag_seconds_bucket{le="+Inf"': (0, 6000),
    'streamseg_segment_customers{scheme="value",segment="loyal"': (400, 1),
    'streamseg_segment_customers{scheme="value",segment="champion"': (100, 1),
    f'{CHANGES},to="loyal"': (0, 4),
    f'{CHANGES},from="loyal",to="champion"': (0, 3),
    'streamseg_segment_value{scheme="value",segment="loyal"': (40_000, 100),
    'streamseg_deadline_lateness_seconds_bucket{le="0.1"': (0, 50),
    'streamseg_deadline_lateness_seconds_bucket{le="+Inf"': (0, 60),
    "streamseg_deadlines_pending{": (450, 1),
    'streamseg_consumer_lag_records{topic="events",partition="0"': (12, 0),
    'streamseg_partition_clock_seconds{partition="0"': (BEGIN, STEP),
    "streamseg_recovery_seconds{": (1.5, 0),
    "streamseg_recovery_records_total{": (0, 600_000),
    "streamseg_recovery_remaining_records{": (0, 0),
    "streamseg_redis_up{": (1, 0),
    'streamseg_redis_writes_total{result="written"': (0, 3000),
    "streamseg_redis_backlog{": (3, 0),
    "streamseg_republished_changes_total{": (0, 2),
    "streamseg_stale_records_total{": (0, 1),
    "streamseg_large_states_total{": (0, 1),
    'streamseg_build_info{version="0.1.0"': (1, 0),
}
NEW_DEFINITIONS_AT = BEGIN + 1800
DEFINITIONS = 'streamseg_definitions_info{hash="sha256:%s"'


def recorded_hour() -> str:
    """Return the hour as OpenMetrics text, with new definitions in the middle of it."""
    lines = [
        f"{sample_name(series)} {start + growth * minute} {BEGIN + minute * STEP}"
        for series, (start, growth) in SERIES.items()
        for minute in range((END - BEGIN) // STEP + 1)
    ]
    for moment in range(BEGIN, END + 1, STEP):
        definitions = "bb" if moment >= NEW_DEFINITIONS_AT else "aa"
        lines.append(f"{sample_name(DEFINITIONS % definitions)} 1 {moment}")
    return "\n".join([*lines, "# EOF", ""])


def sample_name(series: str) -> str:
    separator = "" if series.endswith("{") else ","
    return f'{series}{separator}job="streamseg",instance="worker-1:8077"}}'


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=120)


def await_ready(server: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    deadline = monotonic() + 60
    while monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/-/ready", timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError):
            with suppress(subprocess.TimeoutExpired):
                server.wait(timeout=0.1)
    raise RuntimeError(f"prometheus did not get ready:\n{log.read_text(encoding='utf-8')}")


def result_of(address: str, query: Query) -> list[object]:
    """Return the series that a query has in the recorded hour."""
    asked = {"query": query.expression, "start": BEGIN + 600, "end": END, "step": STEP}
    with urllib.request.urlopen(f"{address}/api/v1/query_range?{urllib.parse.urlencode(asked)}", timeout=30) as answer:
        found: list[object] = json.load(answer)["data"]["result"]
    return found


if not MISSING:

    @pytest.fixture(scope="module")
    def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
        """Yield the address of a Prometheus that holds the recorded hour."""
        home = tmp_path_factory.mktemp("prometheus")
        hour, blocks, empty, log = home / "hour.om", home / "blocks", home / "empty.yml", home / "log"
        hour.write_text(recorded_hour(), encoding="utf-8")
        empty.write_text("{}\n", encoding="utf-8")
        made = promtool("tsdb", "create-blocks-from", "openmetrics", hour, blocks)
        assert made.returncode == 0, made.stderr
        address = f"127.0.0.1:{free_port()}"
        command = [
            f"--config.file={empty}",
            f"--storage.tsdb.path={blocks}",
            f"--web.listen-address={address}",
        ]
        with log.open("wb") as output:
            server = subprocess.Popen(
                ["prometheus", *command, "--storage.tsdb.retention.time=100y"], stdout=output, stderr=output
            )
        try:
            await_ready(server, f"http://{address}", log)
            yield f"http://{address}"
        finally:
            server.terminate()
            server.wait(timeout=30)

    @pytest.mark.parametrize("query", panel_queries() + annotation_queries(), ids=lambda query: query.place)
    def test_a_query_of_the_dashboard_finds_something_to_show(query: Query, prometheus: str) -> None:
        assert result_of(prometheus, query) != []

    def test_prometheus_accepts_its_configuration_and_rules() -> None:
        answer = promtool("check", "config", DEPLOY / "prometheus" / "prometheus.yml")

        assert answer.returncode == 0, answer.stdout + answer.stderr
        assert f"{len(list(RULES.iterdir()))} rule files found" in answer.stdout

    @pytest.mark.parametrize("file", sorted(path.name for path in (DEPLOY / "prometheus" / "tests").iterdir()))
    def test_rules_and_alerts_do_what_their_unit_tests_say(file: str) -> None:
        answer = promtool("test", "rules", DEPLOY / "prometheus" / "tests" / file)

        assert answer.returncode == 0, answer.stdout + answer.stderr
