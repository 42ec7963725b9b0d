"""The published document is true: Schemathesis asks by it and against it, and every reply is as it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from schemathesis.python import asgi

from benchmarks.schemathesis_run import fuzz, with_known_items
from components.serving.admission import Admission
from components.serving.api import make_api
from tests.unit.components.serving_http import start
from tests.unit.components.serving_world import make_home, publish_release


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Any]:
    """The application with its admission, over a journal and a release of its own."""
    layout = make_home(tmp_path)
    publish_release(layout)
    engine = start(layout)
    yield Admission(make_api(engine))
    engine.close()


def test_every_reply_is_what_the_document_says(app: Any) -> None:
    with asgi.get_client(app) as client:
        document = client.get("/openapi.json").json()
        items = [i["item_id"] for i in client.get("/search?size=20").json()["items"]]
        schema = schemathesis.openapi.from_dict(with_known_items(document, [str(i) for i in items]))
        schema.app = app
        found = fuzz(schema, requests=300, seed=11, call=lambda case: case.call(session=client))
    assert found.failures == {}
    assert found.requests == 300
    # Right requests are answered and wrong ones refused: neither half passes for the other's sake.
    assert {"200", "202", "400", "404", "422"} <= set(found.statuses)
    assert found.statuses["200"] + found.statuses["202"] > 60
    assert not [s for s in found.statuses if s.startswith("5")]


def test_a_reply_that_is_not_as_documented_is_found(app: Any) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        async def worse(message: Any) -> None:
            if message["type"] == "http.response.start" and scope["path"] == "/recommend":
                message = {**message, "status": 500}
            await send(message)

        await app(scope, receive, worse)

    with asgi.get_client(broken) as client:
        schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
        schema.app = broken
        found = fuzz(schema, requests=60, seed=11, call=lambda case: case.call(session=client))
    assert found.failed
    assert {name.split(":")[0] for name in found.failures} == {"GET /recommend"}
