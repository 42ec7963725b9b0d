"""Which limits of a policy hold for a release that is promoted by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flows.offline.gate import GateLimits
from flows.policies.limits import changed_components, limits_for, overridden
from flows.policies.policy import parse_policy
from infra.errors import ConfigError
from infra.settings import Home
from models.manifest import ARTIFACTS, Artifact, Manifest, make_release
from models.release import publish, set_champion

POLICY = """\
name: strict
components:
  ranker:
    trigger: {kind: interval, every: 1d}
    gate: {margin: 0.002, fewest: 50, undecided: refuse}
  indexes:
    trigger: {kind: interval, every: 1h}
    gate: {margin: 0.05, size_mb: 90}
  encoder:
    trigger: {kind: interval, every: 1w}
    gate: {margin: 0.03}
"""


def release(**versions: int) -> Manifest:
    """Of all artifacts, of these versions (0)."""
    artifacts = {
        n: Artifact(n, f"{n}-{versions.get(n, 0)}", {"file": f"{versions.get(n, 0):064d}"}, 1)
        for n in ARTIFACTS
    }
    return make_release(artifacts, watermark_us=1, created_us=1)


@pytest.mark.parametrize(
    ("changed", "components"),
    [
        (("ranker",), ("ranker",)),
        (("speller", "lexical_index"), ("indexes",)),
        (("encoder", "vector_index", "ranker"), ("encoder",)),
        (("encoder", "vector_index", "ranker", "lexical_index"), ("encoder", "indexes")),
        (("image_classifier", "image_index"), ("image_classifier",)),
        ((), ()),
    ],
)
def test_what_is_new_tells_whose_limits_hold(changed: tuple[str, ...], components: tuple[str, ...]) -> None:
    assert changed_components(release(), release(**dict.fromkeys(changed, 1))) == components


def test_everything_is_new_in_a_first_release() -> None:
    assert changed_components(None, release()) == (
        "encoder",
        "image_classifier",
        "indexes",
        "text_classifier",
    )


def test_a_policy_s_limits_hold_and_the_strictest_of_several(home: Home) -> None:
    policy = parse_policy(POLICY)
    base = release()
    versions = ({"ranker": 1}, {"speller": 1}, {"ranker": 1, "speller": 1}, {"text_classifier": 1})
    others = [release(**v) for v in versions]
    for manifest in (base, *others):
        for artifact in manifest.artifacts.values():
            for digest in artifact.files.values():
                path = home.blobs / digest[:2] / digest
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"any")
        publish(home, manifest)
    set_champion(home, base.release_id, at_us=1, by="gate")
    ranker, indexes, both, neither = (limits_for(home, m.release_id, policy) for m in others)
    assert ranker == GateLimits(margin=0.002, fewest=50, undecided="refuse")
    assert indexes == GateLimits(margin=0.05, size_mb=90)
    assert both == GateLimits(margin=0.002, fewest=30, undecided="refuse", size_mb=90)
    assert neither == GateLimits()
    missing = "r-000000000000"
    assert limits_for(home, missing, policy) == GateLimits()  # whoever judges it says that there is none


def test_what_is_given_comes_before_the_policy() -> None:
    limits = GateLimits(margin=0.002, size_mb=90)
    given = {"margin": "0.5", "fewest": 5, "undecided": "refuse"}
    assert overridden(limits, given) == replace(limits, margin=0.5, fewest=5, undecided="refuse")
    assert overridden(limits, {}) == limits


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"colour": "1"}, "unknown limit 'colour' of the gate; expected one of margin, undecided"),
        ({"margin": "much"}, "margin is 'much'; expected a number"),
        ({"fewest": "1.5"}, "fewest is '1.5'; expected a whole number"),
        ({"fewest": 1.5}, "fewest is '1.5'; expected a whole number"),
        ({"margin": "-1"}, "margin is -1.0; expected 0 or more"),
        ({"undecided": "coin"}, "undecided is 'coin'; expected mean or refuse"),
    ],
)
def test_impossible_limits_are_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        overridden(GateLimits(), given)
