"""What Schemathesis makes of the published OpenAPI document, right requests and wrong ones: no 5xx, no hang.

    python -m benchmarks.schemathesis_run --http http://127.0.0.1:8000 --requests 20000
    python -m benchmarks.schemathesis_run --in-process HOME --requests 80000

Over HTTP at a running service, or at the application in this process on a copy of HOME's release. Writes go
to the service asked: give it a home of its own. The last line of standard output is one JSON document; exit 3
where a request failed. Ids of items that exist are put into the document, to get past the first check.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

__all__ = ["Fuzzed", "fuzz", "with_known_items"]

HANG_S = 10.0
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)


@dataclass
class Fuzzed:
    """What was sent and what came back."""

    requests: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)  # what broke → the first such request
    failed: int = 0
    slowest_ms: float = 0.0
    slowest: str = ""
    seconds: float = 0.0

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "requests": self.requests,
            "failed": self.failed,
            "failures": self.failures,
            "statuses": dict(sorted(self.statuses.items())),
            "slowest_ms": round(self.slowest_ms, 1),
            "slowest": self.slowest,
            "seconds": round(self.seconds, 1),
        }


def fuzz(
    schema: Any,
    *,
    requests: int,
    seed: int,
    call: Callable[[Any], Any],
    progress: Callable[[str], None] = lambda _: None,
) -> Fuzzed:
    """Send `requests` requests, spread evenly over the operations, half of them against the document.

    `call(case)` sends one and gives the response, or raises where none comes within HANG_S.
    """
    operations = [result.ok() for result in schema.get_all_operations()]
    operations.sort(key=_inputs)  # what has no inputs has one case: the others share the rest
    found = Fuzzed()
    began = time.monotonic()
    for number, operation in enumerate(operations):
        share = (requests - found.requests) // (len(operations) - number)
        modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        for mode, examples in zip(modes, (share - share // 2, share // 2), strict=True):
            if mode is GenerationMode.POSITIVE or _inputs(operation):
                _some(operation, mode, examples, seed=seed + number, call=call, found=found)
        progress(f"{operation.label}: {found.requests} requests, {found.failed} failed")
    found.seconds = time.monotonic() - began
    return found


def with_known_items(document: dict[str, Any], items: Sequence[str]) -> dict[str, Any]:
    """The document with the ids of items that exist as what an item_id may be."""
    told: dict[str, Any] = json.loads(json.dumps(document))
    known = {"type": "string", "enum": list(items)}
    told["components"]["schemas"]["Event"]["properties"]["item_id"] = known
    for path, operations in told["paths"].items():
        for method, operation in operations.items():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "item_id" and method != "put":
                    parameter["schema"] = {"anyOf": [known, parameter["schema"]]}
        assert isinstance(path, str)
    return told


def _inputs(operation: Any) -> int:
    return len(list(operation.iter_parameters())) + bool(operation.body)


def _some(
    operation: Any, mode: Any, examples: int, *, seed: int, call: Callable[[Any], Any], found: Fuzzed
) -> None:
    cases = operation.as_strategy(generation_mode=mode)
    wanted = found.requests + examples
    for attempt in range(20):  # Hypothesis stops early where it believes to have seen every case
        if found.requests >= wanted:
            return

        @hypothesis.seed(seed + 1_000 * attempt)
        @hypothesis.settings(
            max_examples=wanted - found.requests,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @hypothesis.given(case=cases)
        def send(case: Any) -> None:
            _one(case, call, found)

        send()


def _one(case: Any, call: Callable[[Any], Any], found: Fuzzed) -> None:
    began = time.perf_counter()
    label = case.operation.label
    found.requests += 1
    try:
        response = call(case)
        took_ms = (time.perf_counter() - began) * 1e3
        found.statuses[str(response.status_code)] += 1
        case.validate_response(response, checks=list(CHECKS))
    except (Failure, FailureGroup) as broken:
        causes = broken.exceptions if isinstance(broken, FailureGroup) else [broken]
        found.failed += 1
        for cause in causes:
            found.failures.setdefault(f"{label}: {type(cause).__name__}: {str(cause)[:300]}", _shown(case))
    except Exception as error:
        took_ms = (time.perf_counter() - began) * 1e3
        found.failed += 1
        found.failures.setdefault(f"{label}: no response: {type(error).__name__}: {error}", _shown(case))
    if took_ms > found.slowest_ms:
        found.slowest_ms, found.slowest = took_ms, label
    if took_ms > HANG_S * 1e3:
        found.failed += 1
        found.failures.setdefault(f"{label}: {took_ms:.0f} ms", _shown(case))


def _shown(case: Any) -> str:
    try:
        return str(case.as_curl_command())[:1_000]
    except Exception as error:  # a case that cannot be shown is still a failure to report
        return f"{case!r}"[:1_000] + f" ({error})"


def _over_http(url: str, requests: int, seed: int, progress: Callable[[str], None]) -> Fuzzed:
    import requests as http

    session = http.Session()
    document = session.get(f"{url}/openapi.json", timeout=HANG_S).json()
    items = [str(i["item_id"]) for i in session.get(f"{url}/search?size=50", timeout=HANG_S).json()["items"]]
    schema = schemathesis.openapi.from_dict(with_known_items(document, items))
    return fuzz(
        schema,
        requests=requests,
        seed=seed,
        call=lambda case: case.call(base_url=url, session=session, timeout=HANG_S),
        progress=progress,
    )


def _in_process(home: Path, requests: int, seed: int, progress: Callable[[str], None]) -> Fuzzed:
    from schemathesis.python import asgi

    from components.serving.admission import Admission
    from components.serving.api import make_api
    from components.serving.engine import Engine
    from flows.bench.catalogue import copy_home
    from infra.clock import open_clock
    from infra.settings import Home

    with tempfile.TemporaryDirectory(prefix="shelflife-fuzz-") as scratch:
        layout = Home(Path(scratch) / "home")
        copy_home(Home(home), layout)
        engine = Engine(layout, open_clock(layout.clock))
        engine.start()
        app: Any = Admission(make_api(engine))
        try:
            with asgi.get_client(app) as client:
                document = client.get("/openapi.json").json()
                items = [str(i["item_id"]) for i in client.get("/search?size=50").json()["items"]]
                schema = schemathesis.openapi.from_dict(with_known_items(document, items))
                schema.app = app
                return fuzz(
                    schema,
                    requests=requests,
                    seed=seed,
                    call=lambda case: case.call(session=client),
                    progress=progress,
                )
        finally:
            engine.close()


def main() -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.schemathesis_run", description=__doc__.splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--http", metavar="URL")
    where.add_argument("--in-process", metavar="HOME", type=Path)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()

    def progress(line: str) -> None:
        sys.stderr.write(f"fuzz: {line}\n")

    if given.http:
        found = _over_http(given.http.rstrip("/"), given.requests, given.seed, progress)
    else:
        found = _in_process(given.in_process, given.requests, given.seed, progress)
    sys.stdout.write(json.dumps(found.document()) + "\n")
    return 3 if found.failed else 0


if __name__ == "__main__":
    sys.exit(main())
