"""What could not be told when it happened, kept until somebody can tell it: runs and artifacts of a refresh.

A promotion that is done stays done, whatever its reporting meets. Each thing is a file of its own in
`run/unrecorded`; `reconcile` tells the registry, the next flow run tells Prefect.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from infra.clock import wall_us
from infra.errors import EnvironmentError_
from infra.files import write_atomic
from infra.registry import Registry
from infra.settings import Home

__all__ = ["keep", "log_or_keep", "record_kept", "tell_kept"]

_RUN = "run"

log = logging.getLogger("shelflife.unrecorded")


def log_or_keep(
    layout: Home, registry: Registry, name: str, *, metrics: Mapping[str, float], params: Mapping[str, Any]
) -> str | None:
    """Record a run of figures; where the registry cannot be used keep it, and return what is missing."""
    key = f"{name}-{wall_us()}"
    try:
        registry.log_run(name, metrics=metrics, params=params, key=key)
    except EnvironmentError_ as error:
        document = {"name": name, "metrics": dict(metrics), "params": dict(params), "key": key}
        return keep(layout, _RUN, document, what=f"the figures of the {name} in the registry", why=str(error))
    return None


def keep(layout: Home, kind: str, document: Mapping[str, Any], *, what: str, why: str) -> str:
    """Keep a thing that could not be told; a warning says what and why. Returns `what`."""
    log.warning("not recorded now: %s (%s); it will be by what comes next", what, why)
    path = layout.run / "unrecorded" / f"{wall_us()}-{kind}.json"
    with contextlib.suppress(OSError):  # a full disk: the warning is all that is left
        write_atomic(path, json.dumps(document, default=str).encode())
    return what


def record_kept(layout: Home, registry: Registry) -> int:
    """Record the runs that were kept, each once, and forget them; how many. Raises what the registry does."""

    def tell(run: dict[str, Any]) -> None:
        registry.log_run(run["name"], metrics=run["metrics"], params=run["params"], key=run["key"])

    return tell_kept(layout, _RUN, tell)


def tell_kept(layout: Home, kind: str, tell: Callable[[dict[str, Any]], None]) -> int:
    """Give what was kept of a kind to `tell`, the oldest first, and forget it; how many."""
    told = 0
    for path in sorted((layout.run / "unrecorded").glob(f"*-{kind}.json")):
        with contextlib.suppress(ValueError, KeyError, TypeError):  # damaged: nobody can tell it
            tell(json.loads(path.read_bytes()))
            told += 1
        path.unlink(missing_ok=True)
    return told
