"""A host of Ray Serve that only says that it is ready: what `infra/cluster.py` starts in its own tests."""

from __future__ import annotations

import argparse
import signal
import threading

import ray
from fastapi import FastAPI
from ray import serve

api = FastAPI()


@serve.deployment(max_ongoing_requests=10, ray_actor_options={"num_cpus": 0.1})
@serve.ingress(api)
class Ready:
    """The application."""

    @api.get("/health")
    def health(self) -> dict[str, bool]:
        """Ready at once."""
        return {"ready": True}


def main() -> None:
    """Serve until SIGTERM, then close Serve and Ray."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home")
    parser.add_argument("--http-port", type=int)
    given = parser.parse_args()
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    ray.init(
        num_cpus=1,
        object_store_memory=80 << 20,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
    )
    serve.start(http_options={"host": "127.0.0.1", "port": given.http_port})
    serve.run(Ready.bind())
    stopped.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
