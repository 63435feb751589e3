"""The local Redis: it answers, crashes, hangs and comes back on the same port."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import TimeoutError as RedisTimeout

from streamseg import services
from streamseg.services import LocalRedis, ServiceError
from streamseg.services.redis import find_server, redis_problem
from streamseg.services.service import free_port
from tests.services.test_process import wait_for


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalRedis]:
    with LocalRedis(tmp_path / "redis") as server:
        yield server


def test_the_redis_of_the_test_run_answers(redis_url: str, prefix: str) -> None:
    with Redis.from_url(redis_url) as client:
        client.set(f"{prefix}:c1", "vip")

        assert client.get(f"{prefix}:c1") == b"vip"


def test_a_killed_redis_comes_back_empty_on_the_same_address(local: LocalRedis) -> None:
    with Redis.from_url(local.url) as client:
        client.set("c1", "vip")
    url = local.url

    local.kill()

    assert redis_problem(url) is not None
    local.start()
    assert local.url == url
    with Redis.from_url(url) as client:
        assert client.get("c1") is None


def test_a_paused_redis_hangs_and_a_resumed_one_still_knows_its_customers(local: LocalRedis) -> None:
    with Redis.from_url(local.url, socket_timeout=0.2, retry=None) as client:
        client.set("c1", "vip")

        local.pause()

        with pytest.raises(RedisTimeout):
            client.get("c1")
    local.resume()
    with Redis.from_url(local.url) as client:
        assert client.get("c1") == b"vip"


def test_a_redis_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    server = LocalRedis(tmp_path)
    starter = threading.Thread(target=server.start)
    starter.start()
    task = Path(f"/proc/self/task/{starter.native_id}")
    starter.join()
    wait_for(lambda: not task.exists())

    try:
        assert redis_problem(server.url) is None
    finally:
        server.stop()


def test_starting_a_redis_twice_is_refused(local: LocalRedis) -> None:
    with pytest.raises(ServiceError, match=f"^Redis runs already on port {local.port}: stop it before"):
        local.start()

    assert redis_problem(local.url) is None


def test_a_redis_that_does_not_run_cannot_be_killed_but_may_be_stopped(tmp_path: Path) -> None:
    server = LocalRedis(tmp_path)
    server.stop()

    with pytest.raises(ServiceError, match=r"^Redis does not run\. Start it first\.$"):
        server.kill()


def test_a_machine_without_redis_takes_the_server_of_the_wheel(tmp_path: Path) -> None:
    server = find_server({"PATH": str(tmp_path)})

    told = subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout
    assert "server" in told
    assert server.name == "valkey-server"
    assert server.parent.parent.name == "_binaries"


def test_a_redis_named_by_the_environment_is_used_and_left_running(
    local: LocalRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMSEG_REDIS", local.url)
    unused = tmp_path / "unused"

    with services.redis(unused) as url:
        assert url == local.url

    assert redis_problem(local.url) is None
    assert not unused.exists()


def test_a_named_redis_that_does_not_answer_is_told_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("STREAMSEG_REDIS", f"redis://:tops3cret@127.0.0.1:{port}/0")

    with pytest.raises(ServiceError) as failure, services.redis(tmp_path):
        pass

    assert str(failure.value) == (
        f"STREAMSEG_REDIS=redis://:***@127.0.0.1:{port}/0: no Redis answers there "
        f"(Error 111 connecting to 127.0.0.1:{port}. Connection refused). "
        "Start it, or correct the address (redis://host:port/0), "
        "or unset STREAMSEG_REDIS to have a Redis started on this machine."
    )


def test_a_named_redis_with_a_wrong_scheme_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMSEG_REDIS", "127.0.0.1:6379")

    with (
        pytest.raises(ServiceError, match=r"^'127\.0\.0\.1:6379' is no Redis address: .*redis://"),
        services.redis(tmp_path),
    ):
        pass
