"""The gate: is the challenger worse than the champion on the newest logged slice?

Both score the same held-out sessions' requests, each with its own encoder and classifier. Logs
only: the gate never sees the world's truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.offline.inputs import Inputs, Scorers, gate_rows
from flows.offline.train import learned_us, scorers_key
from models.examination import Examination
from models.metrics import bootstrap_mean
from models.release import Release

__all__ = ["MARGIN", "Verdict", "judge"]

MARGIN = 0.01  # NDCG@10 by which a challenger may be worse
FEWEST = 30  # clicked requests below which the slice says nothing


@dataclass(frozen=True)
class Verdict:
    """What the gate found. `difference` is challenger less champion, NDCG@10 on logged clicks."""

    passed: bool
    reasons: tuple[str, ...]
    champion: str | None
    challenger: str
    requests: int
    ndcg10_champion: float | None = None
    ndcg10_challenger: float | None = None
    difference: dict[str, float] | None = None
    margin: float = MARGIN

    def as_dict(self) -> dict[str, Any]:
        """For JSON and the registry."""
        return {**self.__dict__, "reasons": list(self.reasons)}


def judge(
    inputs: Inputs, challenger: Release, champion: Release | None, *, margin: float = MARGIN
) -> Verdict:
    """Refuse a challenger whose NDCG@10 on the slice is lower by more than `margin`, or not a number."""
    name = challenger.release_id
    if champion is None:
        return Verdict(True, ("the first release: there is no champion to compare with",), None, name, 0)
    if champion.ranker is not None and challenger.ranker is None:
        return Verdict(
            False, ("the challenger has no ranker, the champion has one",), champion.release_id, name, 0
        )
    if champion.ranker is None or challenger.ranker is None:
        return Verdict(True, ("neither or only the challenger has a ranker",), champion.release_id, name, 0)
    examination = challenger.ranker.examination  # one for both: theirs differ by chance
    new, sessions = _scores(inputs, challenger, examination)
    if not np.isfinite(new[~np.isnan(new)]).all() or (len(new) and np.isnan(new).all()):
        return Verdict(
            False, ("the challenger's scores are not numbers",), champion.release_id, name, len(new)
        )
    if len(new) < FEWEST:
        reason = f"only {len(new)} clicked requests in the newest slice, {FEWEST} are needed to refuse"
        return Verdict(True, (reason,), champion.release_id, name, len(new))
    old, _ = (new, sessions) if _same(challenger, champion) else _scores(inputs, champion, examination)
    difference = bootstrap_mean(new - old, clusters=sessions, seed=1)
    passed = difference.mean >= -margin
    says = "not worse" if passed else "worse"
    reason = f"NDCG@10 {says} than the champion's by more than {margin:g}: {difference}"
    return Verdict(
        passed,
        (reason,),
        champion.release_id,
        name,
        len(new),
        float(np.nanmean(old)),
        float(np.nanmean(new)),
        difference.as_dict(),
        margin,
    )


def _scores(
    inputs: Inputs, release: Release, examination: Examination
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    scorers = Scorers(
        release.encoder,
        release.text_classifier,
        release.speller,
        release.vector_index,
        scorers_key(release.manifest.artifacts),
        learned_us(release.manifest.artifacts),
    )
    rows = gate_rows(inputs, scorers)
    if not len(rows.groups) or release.ranker is None:
        return np.empty(0), np.empty(0, np.int64)
    return release.ranker.logged_ndcg10(rows, examination=examination)[1], rows.session_ids


def _same(a: Release, b: Release) -> bool:
    wanted = ("ranker", "encoder", "text_classifier", "speller")
    return all(
        getattr(a.manifest.artifacts.get(n), "content", None)
        == getattr(b.manifest.artifacts.get(n), "content", None)
        for n in wanted
    )
