"""The two textbook ways to change a model under Ray Serve, to hold the swap against.

`user_config`: the release is an entry of the deployment's user_config; changing it calls `reconfigure`,
which loads the release and returns. `redeploy`: the application is deployed anew, and Serve replaces
its replica. In both the champion pointer says what to change to; the engine does not watch it itself.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from ray import serve

from components.serving.api import make_api
from components.serving.app import OPTIONS
from components.serving.champions import follow_champion
from components.serving.engine import EngineConfig
from components.serving.entrance import answer_here
from components.serving.process import start_engine
from components.serving.shadow import ShadowLimits
from infra.errors import ShelflifeError
from infra.settings import Home
from models.release import champion

__all__ = [
    "NAME",
    "TextbookReplica",
    "application",
    "build_textbook",
    "follow_by_config",
    "follow_by_redeploy",
]

NAME = "shelflife"
_POLL_S = 0.1


class TextbookReplica:
    """The service's engine, but for the swap: what `reconfigure` names is loaded, and nothing is warmed."""

    def __init__(self, home: str) -> None:
        limits = ShadowLimits(queries=1, pause_s=0.0, rest=0.0)
        self.engine = start_engine(home, EngineConfig(writer="textbook", follow=False, limits=limits))

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Load the release that the configuration names, and answer from it."""
        live = self.engine.live
        wanted = user_config.get("release_id", "")
        if not wanted or (live is not None and live.release_id == wanted):
            return
        record = self.engine.install(wanted)
        if not record.flipped:
            raise ShelflifeError(record.reason)

    def __serve_build_asgi_app__(self) -> Any:
        return answer_here(make_api(self.engine))

    def __del__(self) -> None:
        self.engine.close()


def build_textbook(home: Path, *, cache: Path | None = None) -> Any:
    """The application with a replica that does not swap by itself."""
    deployment = serve.deployment(name="replica", **OPTIONS)(serve.ingress()(TextbookReplica))
    return deployment.bind(str(home))


def application(arguments: dict[str, str]) -> Any:
    """The application for Serve's declarative deployment: {"home": folder}."""
    return build_textbook(Path(arguments["home"]))


def follow_by_config(home: Path, stopped: threading.Event) -> None:
    """Deploy declaratively, and change user_config when the champion changes."""
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ApplicationStatus, ServeDeploySchema

    client: Any = _get_global_client()

    def deploy(release_id: str) -> None:
        about = {
            "name": NAME,
            "route_prefix": "/",
            "import_path": f"{__name__}:application",
            "args": {"home": str(home)},
            "deployments": [{"name": "replica", "user_config": {"release_id": release_id}}],
        }
        client.deploy_apps(ServeDeploySchema.model_validate({"applications": [about]}))

    first = champion(Home(home)) or ""
    deploy(first)
    while not stopped.is_set() and serve.status().applications[NAME].status != ApplicationStatus.RUNNING:
        time.sleep(_POLL_S)
    follow_champion(Home(home), deploy, stopped=stopped, deployed=first)


def follow_by_redeploy(home: Path, stopped: threading.Event) -> None:
    """Deploy, and deploy anew when the champion changes."""

    def deploy(_: str) -> None:
        serve.run(build_textbook(home), name=NAME, route_prefix="/")

    first = (
        champion(Home(home)) or ""
    )  # before the replica reads it: promoted meanwhile, it is deployed again
    deploy(first)
    follow_champion(Home(home), deploy, stopped=stopped, deployed=first)
