"""Puts the admission before Serve's own handling of a request, in the process of a replica only.

Serve calls `middlewares` in every process that speaks HTTP (CALLBACK names it). A refusal then costs neither
Serve's tasks nor FastAPI's, and a page is answered by the shop's own application directly: between two
requests of a quiet service Serve's handling has left the processor's caches, and costs as much as the page.
In a proxy there is no line to hold: it waits for replicas in other processes.
"""

from __future__ import annotations

import asyncio
from typing import Any

from components.serving.admission import ASKING, Admission, App, Receive, Scope, Send

__all__ = ["CALLBACK", "ShortWay", "answer_here", "middlewares"]

CALLBACK = ("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", f"{__name__}:middlewares")
"""The variable that Serve reads, and what it has to be."""

_shops: list[App] = []


def answer_here(shop: App) -> App:
    """Have this process answer `ASKING` by `shop` without Serve; gives `shop` back."""
    _shops[:] = [shop]
    return shop


class ShortWay:
    """ASGI application: pages by `shop`, all else by Serve."""

    def __init__(self, shop: App, serve: App) -> None:
        self._shop, self._serve = shop, serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer. Whoever came with it stands in line first: a page keeps the loop until it is made."""
        if scope["type"] == "http" and scope["method"] == "GET" and scope["path"] in ASKING:
            await asyncio.sleep(0)
            await self._shop(scope, receive, send)
        else:
            await self._serve(scope, receive, send)


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
    return Admission(ShortWay(_shops[0], app) if _shops else app)
