"""The Serve deployment: one replica that holds an engine and answers HTTP in its own process.

All stages are in-process calls; in throughput mode handlers run on the replica's event loop.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.config import BackpressureConfig
from ray.serve.schema import LoggingConfig

from components.search.pipeline import PipelineConfig
from components.search.rank import ExploreConfig
from components.serving.api import make_api
from components.serving.engine import EngineConfig
from components.serving.entrance import answer_here
from components.serving.process import start_engine
from infra.log import setup_logging
from infra.settings import Home

__all__ = ["OPTIONS", "Replica", "build_application"]

MAX_ONGOING = 128
MAX_QUEUED = 512
RETRY_AFTER_S = 1.0
OPTIONS: dict[str, Any] = {
    "num_replicas": 1,
    "max_ongoing_requests": MAX_ONGOING,
    "max_queued_requests": MAX_QUEUED,
    "backpressure_config": BackpressureConfig(status_code=429, retry_after_s=RETRY_AFTER_S),
    "graceful_shutdown_timeout_s": 5.0,
    "health_check_period_s": 5.0,
    "health_check_timeout_s": 30.0,
    "ray_actor_options": {"num_cpus": 0.1},
    "logging_config": LoggingConfig(enable_access_log=False),
}
"""Of the service's deployment, and of those that it is held against."""


@serve.deployment(**OPTIONS)
@serve.ingress()
class Replica:
    """Owns the engine for as long as the replica lives."""

    def __init__(self, home: str, writer: str, cache: str | None, slots: int | None = None) -> None:
        setup_logging(file=Home(Path(home)).run / "serving.log")
        explore = ExploreConfig() if slots is None else ExploreConfig(slots=slots)
        config = EngineConfig(writer=writer, pipeline=PipelineConfig(explore=explore))
        self.engine = start_engine(home, config, cache=cache)

    def __serve_build_asgi_app__(self) -> Any:
        return answer_here(make_api(self.engine))

    def check_health(self) -> None:
        """Serve's own check: a replica without a release is alive, and says 503 by itself."""

    def __del__(self) -> None:
        self.engine.close()


def build_application(
    home: Path, *, writer: str = "serve-0", cache: Path | None = None, slots: int | None = None
) -> Any:
    """The Serve application of a home; `cache`: where fetched data sets lie, for photo queries.

    `slots`: randomised slots of a page, None as many as usual.
    """
    where = None if cache is None else str(cache)
    return Replica.bind(str(home), writer, where, slots)  # type: ignore[attr-defined]
