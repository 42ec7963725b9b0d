"""Ports and disk space: a lack is one clear line before anything starts."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.errors import EnvironmentError_
from infra.machine import describe_machine, free_port, require_disk, require_port, sharp_timers


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as s:
        yield s.getsockname()[1]


def test_a_free_port_can_be_bound() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        assert 0 < port < 65_536


def test_a_port_is_given_once_though_nothing_has_bound_it_yet() -> None:
    given = [free_port() for _ in range(1_000)]
    assert len(set(given)) == len(given)


def test_a_preferred_port_is_taken_only_if_it_is_free(taken: int) -> None:
    free = free_port()
    assert free_port(free) == free
    assert free_port(taken) != taken


def test_a_port_in_use_names_its_holder_and_the_option(taken: int) -> None:
    message = rf"port {taken} is in use by pid {os.getpid()} \(.+\): stop it or pass --http-port"
    with pytest.raises(EnvironmentError_, match=message):
        require_port(taken, option="--http-port")


def test_a_port_that_is_held_on_all_interfaces_is_in_use() -> None:
    with (
        socket.create_server(("0.0.0.0", 0)) as s,
        pytest.raises(EnvironmentError_, match="in use"),
    ):
        require_port(s.getsockname()[1], option="--http-port")


def test_zero_takes_any_port() -> None:
    assert require_port(0, option="--http-port") > 0


@pytest.mark.parametrize("port", [-1, 65_536])
def test_an_impossible_port_is_refused(port: int) -> None:
    with pytest.raises(EnvironmentError_, match="expected 0 to 65535"):
        require_port(port, option="--http-port")


def test_too_little_disk_is_refused_also_for_a_folder_to_come(tmp_path: Path) -> None:
    require_disk(tmp_path / "a" / "b", mb=0)
    with pytest.raises(EnvironmentError_, match=r"MiB free; expected 1000000000000 MiB"):
        require_disk(tmp_path / "a" / "b", mb=10**12)


def test_the_machine_is_described() -> None:
    machine = describe_machine()
    assert machine["cores"] >= 1
    assert machine["memory_mb"] > 100
    assert machine["processor"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
def test_timers_are_sharp_within_and_then_as_before() -> None:
    def slack_ns() -> int:
        return int(ctypes.CDLL(None).prctl(30, 0, 0, 0, 0))

    before = slack_ns()
    with sharp_timers():
        assert slack_ns() == 1
    assert slack_ns() == before
