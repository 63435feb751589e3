"""Ports of local services, of which several processes take some at a time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from streamseg.services import service
from streamseg.services.process import ServiceError
from streamseg.services.service import free_port


def test_a_port_is_given_once_though_nobody_listens_on_it_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setattr(service, "_PORTS", range(port, port + 1))
    with pytest.raises(ServiceError, match="No free port"):
        free_port()


def test_a_port_of_one_process_is_not_given_to_another_until_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from streamseg.services.service import free_port; print(free_port(), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        monkeypatch.setattr(service, "_PORTS", range(port, port + 1))
        with pytest.raises(ServiceError, match="No free port"):
            free_port()
        other.communicate(b"\n")
    assert free_port() == port
