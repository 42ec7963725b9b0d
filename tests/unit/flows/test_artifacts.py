"""What a refresh leaves among Prefect's artifacts: what the gate found and what it cost."""

from __future__ import annotations

import base64
import json
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from flows.offline.artifacts import artifacts_of
from flows.offline.gate import GateLimits, Verdict
from flows.offline.verdict_picture import data_url, verdict_svg

INTERVAL = {"mean": -0.02, "low": -0.05, "high": 0.01}


def verdict(**more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "difference": INTERVAL,
        "ndcg10_champion": 0.5,
        "ndcg10_challenger": 0.48,
        "segments": {"new_users": {"requests": 40.0, **INTERVAL}, "new_items": {"requests": 0.0}},
        "latency_us": {"challenger": 90.0, "champion": 80.0, "allowed": 2_345.6},
        "size_mb": {"challenger": 3.0, "champion": 2.5, "allowed": 7.5},
        "limits": GateLimits().__dict__,
    }
    return Verdict(False, ("worse",), "r-old", "r-new", 120, **found | more).as_dict()


def report(judged: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "release_id": "r-new",
        "promoted": False,
        "verdict": judged,
        "made": {"ranker": "ranker-1", "text_classifier": "text_classifier-2"},
        "steps": {"ranker": {"cpu_s": 2.0, "wall_s": 3.0, "peak_mb": 400.0}},
        "seconds": 9.0,
        "cpu_s": 7.0,
        "ingested": {"rows": 1234},
    }


def made(judged: dict[str, Any] | None = None, **more: Any) -> dict[str, dict[str, Any]]:
    asked: dict[str, Any] = {"why": "every 1d", "runs": {}, "mlflow_url": "http://h:5000"}
    found = artifacts_of(report(judged), **asked | more)
    assert json.loads(json.dumps(found)) == found  # it may have to be kept
    keys = [a["key"] for a in found]
    assert len(keys) == len(set(keys))
    assert all(re.fullmatch(r"[a-z0-9-]+", key) for key in keys)  # Prefect takes no other
    for artifact in found:
        if artifact["kind"] == "table":
            assert len({tuple(row) for row in artifact["value"]}) == 1  # one set of columns
    return {a["key"]: a for a in found}


def test_the_verdict_is_a_table_beside_its_limits_and_a_picture() -> None:
    found = made(verdict())
    rows = {row["what"]: row for row in found["verdict"]["value"]}
    whole = rows["NDCG@10 less the champion's"]
    assert (whole["found"], whole["95 % interval"], whole["allowed"], whole["requests"]) == (
        "-0.0200", "-0.0500 to +0.0100", "-0.01", "120"
    )  # fmt: skip
    assert rows["the same, new users"]["allowed"] == "-0.03"
    assert rows["the same, new items"]["found"] == ""
    assert rows["ranker's time"]["allowed"] == "2,345.6 us"  # as the gate found
    assert (rows["size"]["champion"], rows["size"]["allowed"]) == ("2.5 MB", "7.5 MB")
    assert "**r-new** was not promoted: worse" in found["refresh"]["value"]
    assert "every 1d" in found["refresh"]["value"]
    kind, _, text = found["verdict-picture"]["value"].partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert b"new users (40)" in base64.b64decode(text)


def test_costs_and_links_lead_to_the_runs_in_mlflow() -> None:
    page = "#/experiments/1/runs/abc"
    found = made(verdict(), runs={"text_classifier": page, "gate": "#/experiments/1/runs/def"})
    assert found["mlflow-text-classifier"]["value"] == f"http://h:5000/{page}"
    assert found["mlflow-gate"]["kind"] == "link"
    ranker, text = found["costs"]["value"]
    assert (ranker["cpu_s"], ranker["run"]) == (2.0, "")
    assert text["run"] == f"[MLflow](http://h:5000/{page})"


def test_without_a_comparison_there_is_no_picture() -> None:
    assert {"verdict", "verdict-picture"}.isdisjoint(made(None))
    first = Verdict(True, ("the first release",), None, "r-new", 0, limits=GateLimits().__dict__)
    assert {"verdict", "verdict-picture"}.isdisjoint(made(first.as_dict()))
    few = verdict(difference=None, segments={})
    assert verdict_svg(few) is None
    assert set(made(few)) == {"refresh", "verdict", "costs"}


@pytest.mark.parametrize("segments", [{}, {"new_users": {"requests": 40.0, **INTERVAL}}])
def test_the_picture_is_small_and_has_a_row_for_each_comparison(segments: dict[str, Any]) -> None:
    svg = verdict_svg(verdict(segments=segments))
    assert svg is not None
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert ("new users" in svg) == bool(segments)
    assert len(data_url(svg)) < 60_000
    assert svg == verdict_svg(verdict(segments=segments))
