"""Starts Ray and Serve for a home, waits for a signal, and ends both without leaving a process.

    python -m components.serving.host --home HOME --http-port PORT [--topology NAME] [--random-slots N]

`--topology`: what benches hold the service against; `--random-slots`: of a page, which studies leave out. On
127.0.0.1. Run under `shelflife up`, which keeps the record of its process.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from components.serving.entrance import CALLBACK
from infra.cluster import serve_environment
from infra.errors import ShelflifeError
from infra.files import write_atomic
from infra.log import setup_logging
from infra.settings import load_settings

__all__ = ["READY_FILE", "TOPOLOGIES", "main", "serve_until_signalled"]

READY_FILE = "serving-ready.json"
TOPOLOGIES = ("service", "empty", "split", "user_config", "redeploy")
OBJECT_STORE_BYTES = 80 << 20
REQUEST_TIMEOUT_S = 30.0

_LOG = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """The process' entry; returns its exit code."""
    parser = argparse.ArgumentParser(prog="components.serving.host", description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--topology", choices=TOPOLOGIES, default="service")
    parser.add_argument("--random-slots", type=int)
    given = parser.parse_args(arguments)
    setup_logging()
    try:
        home, slots = given.home.resolve(), given.random_slots
        serve_until_signalled(home, given.http_port, topology=given.topology, slots=slots)
    except ShelflifeError as error:
        _LOG.error("%s", error)
        return error.exit_code
    return 0


def serve_until_signalled(
    home: Path, http_port: int, *, topology: str = "service", slots: int | None = None
) -> None:
    """Serve until SIGTERM or SIGINT. `slots`: randomised ones of the service's pages, None its default."""
    stopped = threading.Event()
    _catch_signals(stopped)
    settings = replace(load_settings(), home=home, http_port=http_port)
    # Ray and Serve read these when they are imported; what `up` set already stays.
    for key, value in (*serve_environment(settings).items(), CALLBACK):
        os.environ.setdefault(key, value)
    began = time.monotonic()

    import ray
    from ray import serve
    from ray.serve.config import HTTPOptions

    ready = settings.layout.run / READY_FILE
    ready.unlink(missing_ok=True)
    try:
        ray.init(
            num_cpus=2,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            configure_logging=False,
            namespace="shelflife",
        )
        _catch_signals(stopped)  # Ray put its own in place
        serve.start(
            proxy_location="HeadOnly",
            http_options=HTTPOptions(
                host=settings.host,
                port=http_port,
                request_timeout_s=REQUEST_TIMEOUT_S,
                keep_alive_timeout_s=120,
            ),
        )
        _deploy(topology, home, settings.cache, stopped, slots)
        _catch_signals(stopped)
        about = {"pid": os.getpid(), "http_port": http_port, "seconds": round(time.monotonic() - began, 2)}
        write_atomic(ready, json.dumps(about).encode())
        _LOG.info("serving on http://%s:%d after %.1f s", settings.host, http_port, about["seconds"])
        stopped.wait()
    finally:
        ready.unlink(missing_ok=True)
        _LOG.info("stopping")
        if ray.is_initialized():
            serve.shutdown()  # type: ignore[no-untyped-call]
            ray.shutdown()


def _deploy(topology: str, home: Path, cache: Path, stopped: threading.Event, slots: int | None) -> None:
    """Deploy what is to be served, and wait until it is."""
    from ray import serve

    from components.serving import textbook, topologies
    from components.serving.app import build_application

    if topology == "user_config":
        textbook.follow_by_config(home, stopped)
    elif topology == "redeploy":
        textbook.follow_by_redeploy(home, stopped)
    else:
        builders: dict[str, Callable[..., Any]] = {
            "service": partial(build_application, slots=slots),
            "empty": topologies.build_empty,
            "split": topologies.build_split,
        }
        serve.run(builders[topology](home, cache=cache), name="shelflife", route_prefix="/")


def _catch_signals(stopped: threading.Event) -> None:
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopped.set())


if __name__ == "__main__":
    sys.exit(main())
