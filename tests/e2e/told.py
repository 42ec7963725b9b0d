"""What `status` and Prefect's own pages tell of a home that runs, held against the home's records."""

from __future__ import annotations

from typing import Any

import httpx

from flows.offline.refresh import read_refreshes
from infra.settings import Home
from models.release import read_manifest
from tests.e2e.shop_process import wait_until

DAY_S = 86_400


def check_status(layout: Home, told: dict[str, Any]) -> None:
    """A status document of a home whose policy makes rankers anew; each part is there and true."""
    manifest = read_manifest(layout, told["release"]["release_id"])
    versions = {name: a["version"] for name, a in told["artifacts"].items()}
    assert versions == {name: a.version for name, a in manifest.artifacts.items()}
    assert all(a["age_s"] >= 0 and 0 <= a["data_age_s"] < 30 * DAY_S for a in told["artifacts"].values())
    assert told["ingest"]["rows"] > 0
    assert 0 <= told["ingest"]["lag_s"] < DAY_S
    ranker = told["policy"]["components"]["ranker"]
    assert ranker["next_us"] >= told["now_us"] or told["policy"]["running"]
    assert told["policy"]["ticked_wall_us"] is not None
    known = {r["release_id"] for r in read_refreshes(layout)}
    assert told["verdicts"]
    assert {v["release_id"] for v in told["verdicts"] if v["component"] != "promote"} <= known
    assert told["cpu_s_today"] >= 0
    for name in ("prefect", "serve"):
        port = told["processes"][name]["ports"]["http"]
        assert httpx.get(f"http://127.0.0.1:{port}/health", timeout=35.0).status_code in (200, 404)
    assert told["processes"]["runner"]["running"]


def judged_runs(layout: Home) -> dict[str, dict[str, Any]]:
    """The refreshes that went through Prefect and the gate, by their run."""
    return {r["flow_run_id"]: r for r in read_refreshes(layout) if r["flow_run_id"] and r["verdict"]}


def check_artifacts(layout: Home, api: str) -> None:
    """Of a refresh that the policy started: words, verdict, costs, a link; and when the next one is due."""
    runs = judged_runs(layout)

    def found() -> list[dict[str, Any]]:
        wanted = {"artifacts": {"flow_run_id": {"any_": list(runs)}}, "limit": 200}
        artifacts: list[dict[str, Any]] = httpx.post(
            f"{api}/artifacts/filter", json=wanted, timeout=60.0
        ).json()
        return artifacts

    wait_until(lambda: any(a["key"].startswith("mlflow") for a in found()), timeout_s=300)
    kinds = {a["key"]: a["type"] for a in found()}
    expected = {"refresh": "markdown", "verdict": "table", "costs": "table", "mlflow-ranker": "markdown"}
    assert expected.items() <= kinds.items(), kinds
    for artifact in found():
        if artifact["key"] == "refresh":
            assert runs[artifact["flow_run_id"]]["release_id"] in artifact["data"]
        if artifact["key"] == "mlflow-ranker":
            assert "#/experiments/" in artifact["data"]
    by_key = {"artifacts": {"key": {"any_": ["schedule"]}}}
    schedule = httpx.post(f"{api}/artifacts/filter", json=by_key, timeout=60.0).json()
    assert "ranker" in schedule[0]["data"]
