"""The demo's report: it shows every figure, opens offline, claims no gain that is none, and never raises."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.report.page import (
    ArmsPoint,
    DemoRecord,
    RefreshMark,
    SwapMark,
    command,
    completed,
    summary,
    write_report,
)
from flows.report.record import by_condition, conditions, live_age, quantile, shop_day_at, weights_share
from flows.report.words import answer, finding, num, signed, span, verdict
from models.metrics import Interval

NAN = float("nan")
PICTURES = ("quality", "attribution", "latency", "tail", "freshness", "timeline")


def interval(mean: float, half: float = 0.006) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


def make(*, weights: float = 0.02, failed: int = 0) -> DemoRecord:
    """Two shop days of 20 s with a swap in each; the offline loop ran before each swap."""
    rng = np.random.default_rng(4)
    n = 600
    ok = np.ones(n, bool)
    ok[rng.choice(n, failed, replace=False)] = False
    arms = tuple(
        ArmsPoint(
            14.5 + d,
            10.0 + 20 * d,
            300,
            f"release{d}",
            *(Interval(m, m - 0.01, m + 0.01) for m in (0.4 - 0.02 * d, 0.42, 0.42 + weights)),
        )
        for d in range(2)
    )
    document = {
        "requests": n,
        "failed": failed,
        "swaps": 2,
        "releases_served": 3,
        "ndcg10": {"frozen": 0.39017, "state_fresh": 0.42023, "full": 0.42023 + weights},
        "full_minus_state_fresh": interval(weights),
        "state_fresh_minus_frozen": interval(0.03006),
        "latency_ms": {"p50": 2.617, "p99": 19.337, "p99_installing": 41.903},
        "freshness_s": {"p50": 12.77, "p99": 23.91},
        "train_cpu_s": 17.31,
        "seed": 11,
        "report": "var/reports/demo-1/report.html",
        "extra": {"kept": [1.25, 2.5]},
    }
    return DemoRecord(
        document=document,
        arms=arms,
        swaps=(
            SwapMark("aaaa1111", 9.0, 10.5, 14.2, ("ranker", "vector_index")),
            SwapMark("bbbb2222", 29.0, 31.0, 15.1, ("ranker",)),
        ),
        refreshes=(
            RefreshMark(3.0, 9.0, "ranker", True, ("NDCG@10 not worse: +0.0041",), 8.25),
            RefreshMark(22.0, 28.5, "encoder", False, ("worse by more than 0.01", "and slower"), 9.06),
        ),
        due_s=np.sort(rng.uniform(0, 40, n)),
        latency_ms=rng.lognormal(1, 0.5, n),
        ok=ok,
        freshness_s=rng.uniform(8, 24, 500),
        state_freshness_ms=rng.lognormal(3, 0.4, 500),
        machine={"cores": "2", "processor": "a test's"},
        world={"drift": "strong", "days": 14},
        commit="0123456789abcdef",
        day_seconds=20.0,
    )


def bare(record: DemoRecord) -> DemoRecord:
    none = np.empty(0)
    return replace(
        record, document={}, arms=(), swaps=(), refreshes=(), due_s=none, latency_ms=none,
        ok=none.astype(bool),
        freshness_s=none, state_freshness_ms=none, machine={}, world={}, commit="",
    )  # fmt: skip


def nans(record: DemoRecord) -> DemoRecord:
    unknown = Interval(NAN, NAN, NAN)
    arms = tuple(replace(p, frozen=unknown, state_fresh=unknown, full=unknown) for p in record.arms)
    gaps = {k: dict.fromkeys(("mean", "low", "high"), NAN) for k in record.document if "_minus_" in k}
    return replace(record, arms=arms, document=record.document | gaps)


EDGES: dict[str, Callable[[DemoRecord], DemoRecord]] = {
    "no swaps": lambda r: replace(r, swaps=()),
    "nothing offline": lambda r: replace(r, swaps=(), refreshes=(), freshness_s=np.empty(0)),
    "one of each": lambda r: replace(
        r, arms=r.arms[:1], swaps=r.swaps[:1], refreshes=r.refreshes[:1], due_s=r.due_s[:1],
        latency_ms=r.latency_ms[:1], ok=r.ok[:1], freshness_s=np.array([3.0]),
        state_freshness_ms=np.array([0.0]),
    ),
    "swaps after the traffic": lambda r: replace(
        r, due_s=r.due_s / 40, freshness_s=np.array([3.0, np.inf, NAN]), latency_ms=np.zeros(len(r.ok))
    ),
    "days scored at once": lambda r: replace(
        r, arms=tuple(replace(p, wall_s=40.0, full=Interval(0.4, NAN, NAN)) for p in r.arms)
    ),
    "all failed": lambda r: replace(r, ok=np.zeros(len(r.ok), bool), latency_ms=np.full(len(r.ok), NAN)),
    "not a number": nans,
    "nothing": bare,
}  # fmt: skip


class Page(HTMLParser):
    """What a page refers to, its tags, its ids, its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.labels: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                self.references.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if name == "aria-labelledby":
                self.labels.append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def leaves(found: Any) -> Iterator[Any]:
    if isinstance(found, dict):
        for value in found.values():
            yield from leaves(value)
    elif isinstance(found, list):
        for value in found:
            yield from leaves(value)
    else:
        yield found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoRecord, Path]:
    record = make(failed=2)
    return record, write_report(record, tmp_path_factory.mktemp("report") / "demo-1")


def test_every_figure_stands_in_the_page_and_in_its_json(
    written: tuple[DemoRecord, Path],
) -> None:
    record, path = written
    text, found = Page(path.read_text()).text, json.loads((path.parent / "demo.json").read_text())
    for value in leaves(record.document):
        shown = f"{value:.10g}" if isinstance(value, float) else str(value)
        assert shown in text
    assert all(found["document"][k] == v for k, v in record.document.items() if k != "latency_ms")
    assert record.document["latency_ms"].items() <= found["document"]["latency_ms"].items()
    for swap in record.swaps:
        assert swap.release_id in text
    for run in record.refreshes:
        assert all(reason in text for reason in run.reasons)
        assert num(run.cpu_s, 1) in text
    for name, row in found["by_condition"].items():
        assert all(v is None or num(v, 2) in text or num(v) in text for v in row.values()), name
    for point in found["arms"]:
        assert all(num(point[arm]["mean"], 4) in text for arm in ("frozen", "state_fresh", "full"))
    assert [list(s["changed"]) for s in found["swaps"]] == [list(s.changed) for s in record.swaps]


def test_the_page_opens_offline_and_its_links_lead_somewhere(written: tuple[DemoRecord, Path]) -> None:
    path = written[1]
    text = path.read_text()
    page = Page(text)
    assert not {"script", "iframe", "object", "embed", "base"} & set(page.tags)
    assert "@import" not in text
    assert "http:" not in text
    assert "https:" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    for reference in page.references:
        if reference.startswith("#"):
            assert reference[1:] in page.ids
        elif reference != "data:,":
            assert (path.parent / reference).is_file()


def test_ids_are_unique_and_each_picture_has_its_text(written: tuple[DemoRecord, Path]) -> None:
    page = Page(written[1].read_text())
    assert len(page.ids) == len(set(page.ids))
    assert page.labels == [f"{name}-alt" for name in PICTURES]
    assert set(page.labels) <= set(page.ids)


def test_pictures_stand_beside_the_page(written: tuple[DemoRecord, Path]) -> None:
    folder = written[1].parent
    for name in PICTURES:
        assert ElementTree.parse(folder / f"{name}.svg").getroot().tag.endswith("svg")
        assert (folder / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert not [p for p in folder.iterdir() if p.suffix == ".tmp"]


def test_the_same_record_gives_the_same_files(written: tuple[DemoRecord, Path], tmp_path: Path) -> None:
    record, path = written
    write_report(record, tmp_path)
    for name in ("report.html", "demo.json", *(f"{n}.svg" for n in PICTURES)):
        assert (tmp_path / name).read_bytes() == (path.parent / name).read_bytes()


@pytest.mark.parametrize("edge", EDGES)
def test_a_report_is_written_whatever_happened(edge: str, tmp_path: Path) -> None:
    record = EDGES[edge](make(failed=1))
    text = Page(write_report(record, tmp_path).read_text()).text
    json.loads((tmp_path / "demo.json").read_text())
    assert verdict(record.document) in text
    assert "nan" not in re.findall(r"\w+", text)
    assert 8 <= len(summary(record.document).splitlines()) <= 14
    for name in PICTURES:
        assert (tmp_path / f"{name}.svg").exists() == (tmp_path / f"{name}.png").exists()


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    text = Page(write_report(bare(make()), tmp_path).read_text()).text
    for said in ("No shop day was scored", "No live request was recorded", "No release was swapped"):
        assert said in text
    assert not list(tmp_path.glob("*.png"))


def test_names_from_outside_cannot_become_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    runs = (replace(make().refreshes[0], component=evil, reasons=(evil,)),)
    record = replace(bare(make()), refreshes=runs, commit=evil, machine={evil: evil}, world={"x": evil})
    page = Page(write_report(record, tmp_path).read_text())
    assert "script" not in page.tags
    assert evil in page.text


def test_a_null_result_says_so_and_divides_nothing(tmp_path: Path) -> None:
    document = make(weights=0.001).document
    record = replace(bare(make()), document=document)
    text = Page(write_report(record, tmp_path).read_text()).text
    assert "No gain of fresh weights can be shown" in text
    assert "includes zero" in answer(document)[0]
    assert "not told from zero" in text
    assert "% from fresh weights" not in text
    assert "·" not in (tmp_path / "attribution.svg").read_text()
    assert summary(document).startswith("No gain of fresh weights can be shown")


def test_a_gain_is_divided_between_state_and_weights() -> None:
    worth, cost, tail = answer(completed(make(weights=0.01002)))
    assert "75 % comes from fresh state" in worth
    assert "25 % from fresh weights" in worth
    assert "8.7 CPU-seconds a shop day (17.3 in all, over 2.0 shop days)" in cost
    assert "p99 41.9 ms while a release was being installed" in tail
    assert "none of 600 requests failed" in tail


def test_failed_requests_are_named_and_no_figure_hides_them() -> None:
    record = make(failed=7)
    found = by_condition(record)
    assert "7 of 600 requests failed" in answer(record.document)[2]
    assert found["all"]["failed"] == 7
    assert math.isinf(found["all"]["max_ms"])
    assert math.isinf(found["all"]["p99_ms"])  # 7 of 600 are more than 1 %


@given(st.floats(-0.1, 0.1), st.floats(0, 0.05), st.floats(-0.1, 0.1), st.floats(0, 0.05), st.booleans())
def test_a_share_is_claimed_only_where_both_intervals_are_above_zero(
    state: float, half: float, weights: float, other: float, missing: bool
) -> None:
    document = {
        "state_fresh_minus_frozen": interval(state, half),
        "full_minus_state_fresh": None if missing else interval(weights, other),
    }
    worth = answer(document)[0]
    shown = not missing and state - half > 0 and weights - other > 0
    assert ("% from fresh weights" in worth) == shown
    if not missing and weights - other <= 0 <= weights + other:
        assert "no gain of theirs can be shown" in worth
    assert "nan" not in worth


@given(st.floats(0, 0.1), st.floats(0, 0.05), st.floats(0, 0.1), st.floats(0, 0.05))
def test_the_interval_of_the_share_holds_the_share_of_every_pair_inside(
    state: float, half: float, weights: float, other: float
) -> None:
    s, w = Interval(state, state - half, state + half), Interval(weights, weights - other, weights + other)
    share = weights_share(s, w)
    if share is None or math.isnan(share.low):
        return
    for a in np.linspace(s.low, s.high, 5):
        for b in np.linspace(w.low, w.high, 5):
            assert share.low - 1e-9 <= b / (a + b) <= share.high + 1e-9


def test_each_request_is_in_one_condition() -> None:
    record = make()
    found = conditions(record)
    assert (sum(mask.astype(int) for mask in found.values()) == 1).all()
    assert all((t < 3) | (9 < t < 9 + 1e-9) | (10.5 < t < 22) | (28.5 < t < 29) | (t > 31)
               for t in record.due_s[found["quiet"]])  # fmt: skip
    rows = by_condition(record)
    assert sum(rows[name]["requests"] for name in found) == rows["all"]["requests"] == 600


def test_the_calendar_and_the_live_age_follow_the_marks() -> None:
    record = make()
    assert shop_day_at(record, [0.0, 20.0, 50.0]).tolist() == pytest.approx([14.0, 15.0, 16.5])
    t, age = live_age(record)
    assert t[:5].tolist() == pytest.approx([0, 10.5, 10.5, 31.0, 31.0])
    assert age[:5].tolist() == pytest.approx([0, 0.525, 14.525 - 14.2, 15.55 - 14.2, 15.55 - 15.1])


def test_what_the_demo_says_is_kept_and_what_follows_is_added() -> None:
    record = make(weights=0.03006)
    document = completed(record)
    assert record.document["latency_ms"].items() <= document["latency_ms"].items()
    assert document["latency_ms"]["p99_otherwise"] > 0
    assert document["weights_share"]["mean"] == pytest.approx(0.5)
    given_already = completed(replace(record, document=record.document | {"shop_days": 4.0}))
    assert given_already["train_cpu_s_per_shop_day"] == pytest.approx(17.31 / 4)
    assert "p99_otherwise" not in record.document["latency_ms"]


def test_the_command_repeats_the_demo() -> None:
    record = make()
    assert command(record) == "shelflife demo --seed 11 --day-seconds 20"
    told = record.document | {"seconds": 90.0, "rate": 50.0, "day_seconds": 20.0}
    assert command(replace(record, document=told)) == (
        "shelflife demo --seed 11 --seconds 90 --rate 50 --day-seconds 20"
    )


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (num(-0.0123), "−0.012"), (num(-0.0001), "0.000"), (num(5400), "5,400"), (num(np.int64(3)), "3"),
        (num(NAN), "–"), (num(None), "–"), (num(math.inf), "∞"), (signed(0.02), "+0.020"),
        (signed(-0.02), "−0.020"), (signed(0.0), "0.000"), (signed(NAN), "–"),
        (span(interval(0.02)), "+0.020 [0.014, 0.026]"), (span(None), "not measured"),
        (finding(interval(-0.02)), "loss"), (finding(interval(0.006)), "none"), (finding(0.2), "unknown"),
    ],
)  # fmt: skip
def test_figures_in_words(shown: str, expected: str) -> None:
    assert shown == expected


def test_a_quantile_is_one_of_the_values() -> None:
    assert quantile([1.0, 2.0, math.inf], 0.5) == 2.0
    assert math.isnan(quantile([], 0.5))
