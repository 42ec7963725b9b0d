"""Puts the admission before Serve's own handling of a request, in the process of a replica only.

Serve calls `middlewares` in every process that speaks HTTP (CALLBACK names it). A refusal then costs neither
Serve's tasks nor FastAPI's. In a proxy there is no line to hold: it waits for replicas in other processes.
"""

from __future__ import annotations

from typing import Any

from components.serving.admission import Admission, App

__all__ = ["CALLBACK", "middlewares"]

CALLBACK = ("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", f"{__name__}:middlewares")
"""The variable that Serve reads, and what it has to be."""


def middlewares() -> list[Any]:
    """What Serve wraps around an HTTP server's application, the outermost last."""
    from ray import serve
    from ray.serve.exceptions import RayServeException
    from starlette.middleware import Middleware

    try:
        serve.get_replica_context()
    except RayServeException:
        return []
    return [Middleware(_make)]


def _make(app: App) -> Admission:
    return Admission(app)
