"""Deploys each champion that is promoted: for topologies whose replicas do not watch the pointer themselves.

It knows the pointer alone. How a release is deployed, the caller says. What fails is logged and tried
again, so that neither a torn pointer nor a failed deployment ends the watching.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from infra.settings import Home
from models.release import champion

__all__ = ["follow_champion"]

_LOG = logging.getLogger(__name__)
POLL_S = 0.1
RETRY_S = 2.0


def follow_champion(
    layout: Home,
    deploy: Callable[[str], None],
    *,
    stopped: threading.Event,
    deployed: str,
    poll_s: float = POLL_S,
    retry_s: float = RETRY_S,
) -> threading.Thread:
    """Call `deploy` with each champion that is not the one before, in a thread, until `stopped`.

    `deployed`: what is deployed by now ("": nothing), read before it was deployed, so that a promotion in
    between is not missed.
    """

    def watch() -> None:
        seen = deployed
        while not stopped.wait(poll_s):
            try:
                wanted = champion(layout)
                if wanted is not None and wanted != seen:
                    deploy(wanted)
                    seen = wanted
            except Exception:  # whatever it is, the next promotion must be seen
                _LOG.exception("the champion is not deployed; trying again in %g s", retry_s)
                stopped.wait(retry_s)

    thread = threading.Thread(target=watch, name="champions", daemon=True)
    thread.start()
    return thread
