"""Names of panels: a hash of all that one is made from, the code that makes it included."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from flows.studies.panels.panel import PANEL_VERSION
from models.candidate_features import FEATURE_SCHEMA

__all__ = ["code_hash", "panel_key"]

_ROOT = Path(__file__).parents[3]
_REPLAYED = (
    "components/search/*.py",
    "data/*.py",
    "data/world/*.py",
    "flows/evaluation/arms.py",
    "flows/offline/index.py",
    "flows/offline/inputs.py",
    "flows/offline/train.py",
    "flows/studies/panels/labelled.py",
    "flows/studies/panels/log.py",
    "flows/studies/panels/pools.py",
    "flows/studies/panels/recent.py",
    "flows/studies/panels/scorers.py",
    "flows/studies/panels/stretches.py",
    "flows/studies/panels/texts.py",
    "flows/studies/panels/world.py",
    "data/sources/interactions.py",
    "models/boosting.py",
    "models/candidate_*.py",
    "models/encoder.py",
    "models/examination.py",
    "models/fitting.py",
    "models/hashing.py",
    "models/metrics.py",
    "models/*_index.py",
    "models/speller.py",
    "models/text_classifier.py",
    "models/training_rows.py",
)
_NEXT_ITEM = (
    *(f"data/{name}.py" for name in ("codes", "fractions", "schema", "snapshots")),
    "data/sources/*.py",
    *(f"flows/studies/panels/next_item/{name}.py" for name in ("baskets", "features", "fold", "panel")),
    "models/metrics.py",
)
_MADE_BY = {"world": _REPLAYED, "log": _REPLAYED}


@lru_cache
def code_hash(kind: str) -> str:
    """Hex SHA-256 of the code that makes panels of a kind: whoever changes it gets new ones."""
    digest = hashlib.sha256()
    for pattern in _MADE_BY.get(kind, _NEXT_ITEM):
        for path in sorted(_ROOT.glob(pattern)):
            digest.update(f"{path.relative_to(_ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def panel_key(kind: str, **made_from: Any) -> str:
    """16 hex digits over what a panel is made from (JSON values), its version and the code.

    `kind`: `world`, `log`, or any other name for a log without impressions.
    """
    document = made_from | {
        "kind": kind,
        "panel": PANEL_VERSION,
        "features": FEATURE_SCHEMA,
        "code": code_hash(kind),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
