import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from tests.deploy.deployment import (
    DEPLOY,
    PROJECT,
    compose,
    project_version,
    read_yaml,
    services,
    streamseg_services,
    workers,
)

SERVICES = sorted(services())
WORKERS = sorted(workers())


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Return target → source of a service's volumes."""
    split = (volume.split(":") for volume in service.get("volumes", []))
    return {parts[1]: parts[0] for parts in split}


def is_one_shot(service: dict[str, Any]) -> bool:
    return bool(service["restart"] == "no")


def has_healthcheck(service: dict[str, Any]) -> bool:
    return "test" in service.get("healthcheck", {})


def test_the_compose_file_follows_the_compose_specification() -> None:
    schema = json.loads((Path(__file__).parent / "compose_spec" / "compose-spec.json").read_text(encoding="utf-8"))

    errors = [error.message for error in jsonschema_rs.validator_for(schema).iter_errors(compose())]

    assert errors == []


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_only_for_what_can_come(name: str) -> None:
    for dependency, how in services()[name].get("depends_on", {}).items():
        target = services()[dependency]
        if how["condition"] == "service_completed_successfully":
            assert is_one_shot(target), f"{dependency} restarts for ever, so {name} would never start"
        else:
            assert how["condition"] == "service_healthy"
            assert has_healthcheck(target), f"{dependency} has no healthcheck for {name} to wait for"


@pytest.mark.parametrize("name", SERVICES)
def test_everything_a_service_mounts_is_there(name: str) -> None:
    for source in mounts(services()[name]).values():
        if source.startswith("."):
            assert (PROJECT / source).exists(), f"{name} mounts {source}, which is not in the tree"
        else:
            assert source in compose()["volumes"], f"{name} mounts the volume {source}, which is not declared"


def test_every_declared_volume_is_used() -> None:
    used = {source for service in services().values() for source in mounts(service).values()}

    assert set(compose()["volumes"]) - used == set()


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_pinned_to_a_full_version(name: str) -> None:
    _, _, tag = services()[name]["image"].rpartition(":")

    assert re.match(r"v?\d+\.\d+\.\d+", tag), f"{name} runs {services()[name]['image']}"


def test_the_streamseg_image_carries_the_version_of_the_project() -> None:
    assert {service["image"] for service in streamseg_services().values()} == {f"streamseg:{project_version()}"}


def test_the_streamseg_image_is_built_from_the_dockerfile() -> None:
    for service in streamseg_services().values():
        build = service["build"]
        assert (PROJECT / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_few_rights(name: str) -> None:
    service = services()[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert re.fullmatch(r"[1-9]\d*:\d+", service["user"]), f"{name} needs a numeric user that is not root"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_cannot_take_the_whole_machine(name: str) -> None:
    assert set(services()[name]["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_only(name: str) -> None:
    for port in services()[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), f"{name} publishes {port}"


def test_no_two_services_publish_the_same_port() -> None:
    published = [port.rpartition(":")[0] for service in services().values() for port in service.get("ports", [])]

    assert len(published) == len(set(published))


@pytest.mark.parametrize("name", [name for name in SERVICES if "ports" in services()[name]])
def test_a_service_that_others_reach_says_whether_it_is_healthy(name: str) -> None:
    assert has_healthcheck(services()[name])


def test_two_workers_share_the_partitions() -> None:
    settings = [worker["environment"] for worker in workers().values()]

    assert len(settings) == 2
    assert settings[0] == settings[1]


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_is_healthy_when_it_is_ready(name: str) -> None:
    host, _, port = workers()[name]["environment"]["STREAMSEG_HTTP"].rpartition(":")

    assert host == "0.0.0.0", "on another address nothing outside the container reaches it"
    assert f"127.0.0.1:{port}/readyz" in workers()[name]["healthcheck"]["test"][-1]
    assert [published.rpartition(":")[2] for published in workers()[name]["ports"]] == [port]


def test_each_worker_has_data_of_its_own() -> None:
    volumes = [mounts(worker)[worker["environment"]["STREAMSEG_DATA"]] for worker in workers().values()]

    assert len(volumes) == len(set(volumes))


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_finds_its_definitions(name: str) -> None:
    worker = workers()[name]

    assert (PROJECT / mounts(worker)[worker["environment"]["STREAMSEG_DEFINITIONS"]]).is_file()


def test_the_shop_writes_to_the_topic_that_the_workers_read() -> None:
    created = [argument for argument in services()["events-topic"]["command"] if argument.startswith("--topic=")]
    generator = services()["generator"]["command"]
    read = {worker["environment"]["STREAMSEG_EVENTS"] for worker in workers().values()}

    assert read == {generator[generator.index("--topic") + 1]}
    assert created == [f"--topic={topic}" for topic in read]


def test_topics_are_made_for_the_same_group_and_prefix_as_the_workers_use() -> None:
    settings = services()["topics"]["environment"]

    for worker in workers().values():
        assert settings.items() <= worker["environment"].items()


def test_prometheus_scrapes_every_worker() -> None:
    jobs = {job["job_name"]: job for job in read_yaml(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"]}
    targets = jobs["streamseg"]["static_configs"][0]["targets"]
    ports = {name: worker["environment"]["STREAMSEG_HTTP"].rpartition(":")[2] for name, worker in workers().items()}

    assert sorted(targets) == sorted(f"{name}:{port}" for name, port in ports.items())


def test_prometheus_finds_the_rules_where_they_are_mounted() -> None:
    patterns = read_yaml(DEPLOY / "prometheus" / "prometheus.yml")["rule_files"]
    mounted = mounts(services()["prometheus"])

    assert mounted["/etc/prometheus/rules"] == "./deploy/prometheus/rules"
    assert {path for pattern in patterns for path in (DEPLOY / "prometheus").glob(pattern)} == set(
        (DEPLOY / "prometheus" / "rules").iterdir()
    )


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    source = read_yaml(provisioning / "datasources" / "prometheus.yml")["datasources"][0]
    provider = read_yaml(provisioning / "dashboards" / "streamseg.yml")["providers"][0]
    mounted = mounts(services()["grafana"])

    assert source["url"] == "http://prometheus:9090"
    assert mounted["/etc/grafana/provisioning"] == "./deploy/grafana/provisioning"
    assert mounted[provider["options"]["path"]] == "./deploy/grafana/dashboards"


def test_grafana_knows_how_often_prometheus_scrapes() -> None:
    source = read_yaml(DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml")["datasources"][0]

    scrape = read_yaml(DEPLOY / "prometheus" / "prometheus.yml")["global"]["scrape_interval"]

    assert source["jsonData"]["timeInterval"] == scrape
