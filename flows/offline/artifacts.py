"""What a refresh leaves among Prefect's artifacts: the verdict as a table and a picture, costs, links.

They are made as plain documents, so that they can be kept and told later where Prefect does not answer.
Prefect is imported where they are told. Links lead to MLflow's own pages (`shelflife up --mlflow`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flows.offline.verdict_picture import data_url, verdict_svg

__all__ = ["artifacts_of", "tell"]

Artifact = dict[str, Any]
"""kind (markdown, table, image or link), key, description, and its value (a text, or the rows of a table)."""


def artifacts_of(
    report: Mapping[str, Any],
    *,
    why: str,
    runs: Mapping[str, str],
    mlflow_url: str,
) -> list[Artifact]:
    """The artifacts of a refresh's document.

    `runs`: artifact → page of its training in MLflow, `gate` among them; `mlflow_url`: where MLflow's pages
    are, if they are.
    """
    verdict = report["verdict"] or {}
    pages = {name: f"{mlflow_url}/{page}" for name, page in runs.items()}
    made = [_made(report, name, pages.get(name)) for name in report["made"]]
    found = [_artifact("markdown", "refresh", "What a refresh did, and why", _words(report, why, mlflow_url))]
    if rows := list(_judged(verdict)):
        found.append(_artifact("table", "verdict", f"What the gate found of {report['release_id']}", rows))
    if svg := verdict_svg(verdict) if verdict else None:
        told = f"{report['release_id']} against {verdict['champion']}, NDCG@10 on logged clicks"
        found.append(_artifact("image", "verdict-picture", told, data_url(svg)))
    if made:
        found.append(_artifact("table", "costs", f"What {report['release_id']} cost", made))
    for name, page in pages.items():
        key = f"mlflow-{name.replace('_', '-')}"
        about = f"The {name} of {report['release_id']} in MLflow; `shelflife up --mlflow` shows its pages"
        found.append(_artifact("link", key, about, page))
    return found


def tell(artifacts: Iterable[Artifact]) -> None:
    """Give them to Prefect, within a flow run or by themselves. Raises what Prefect's client does."""
    from prefect.artifacts import (
        create_image_artifact,
        create_link_artifact,
        create_markdown_artifact,
        create_table_artifact,
    )

    for artifact in artifacts:
        about, value = {k: artifact[k] for k in ("key", "description")}, artifact["value"]
        if artifact["kind"] == "markdown":
            create_markdown_artifact(markdown=value, **about)
        elif artifact["kind"] == "table":
            create_table_artifact(table=value, **about)
        elif artifact["kind"] == "image":
            create_image_artifact(image_url=value, **about)
        else:
            create_link_artifact(link=value, link_text=artifact["description"], **about)


def _artifact(kind: str, key: str, description: str, value: Any) -> Artifact:
    return {"kind": kind, "key": key, "description": description, "value": value}


def _words(report: Mapping[str, Any], why: str, mlflow_url: str) -> str:
    verdict = report["verdict"] or {}
    reasons = "; ".join(verdict.get("reasons", ("it is the champion",)))
    did = "was promoted" if report["promoted"] else "was not promoted"
    lines = [
        f"**{report['release_id']}** {did}: {reasons}",
        f"\nWhy it ran: {why}\n",
        "| of | figure |\n|---|---|",
        f"| seconds | {report['seconds']:.1f} |",
        f"| CPU-seconds | {report['cpu_s']:.1f} |",
        f"| events new | {report['ingested']['rows']:,} |",
        f"\nTrainings, costs and the verdict are in MLflow: {mlflow_url} (`shelflife up --mlflow`)",
    ]
    return "\n".join(lines)


def _judged(verdict: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Rows of the verdict: NDCG@10 of all and by segment, speed, size; each beside what is allowed."""
    limits = verdict.get("limits") or {}
    compared: dict[str, Any] = {}
    if verdict.get("difference"):
        all_of_it = {"requests": verdict["requests"], **verdict["difference"]}
        compared["NDCG@10 less the champion's"] = (all_of_it, "margin")
    for name, figures in (verdict.get("segments") or {}).items():
        compared[f"the same, {name.replace('_', ' ')}"] = (figures, "segment_margin")
    for what, (figures, limit) in compared.items():
        known = "mean" in figures
        yield {
            "what": what,
            "found": f"{figures['mean']:+.4f}" if known else "",
            "95 % interval": f"{figures['low']:+.4f} to {figures['high']:+.4f}" if known else "",
            "champion": "",
            "allowed": f"{-limits[limit]:+g}",
            "requests": f"{figures['requests']:.0f}",
        }
    for what, name, unit in (("ranker's time", "latency_us", "us"), ("size", "size_mb", "MB")):
        if figures := verdict.get(name):
            old = figures.get("champion")  # none where it could not be loaded
            allowed = figures.get("allowed")  # an older Shelflife kept none
            yield {
                "what": what,
                "found": f"{figures['challenger']:,.1f} {unit}",
                "95 % interval": "",
                "champion": "" if old is None else f"{old:,.1f} {unit}",
                "allowed": "" if allowed is None else f"{allowed:,.1f} {unit}",
                "requests": "",
            }


def _made(report: Mapping[str, Any], name: str, page: str | None) -> dict[str, Any]:
    step = report["steps"].get(name, {})
    return {
        "artifact": name,
        "version": report["made"][name],
        "cpu_s": step.get("cpu_s"),
        "wall_s": step.get("wall_s"),
        "peak_mb": step.get("peak_mb"),
        "run": f"[MLflow]({page})" if page else "",
    }
