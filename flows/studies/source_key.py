"""Names of panels: a hash of all that one is made from, the code that makes it included."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from flows.studies.panel import PANEL_VERSION
from models.candidate_features import FEATURE_SCHEMA

__all__ = ["code_hash", "panel_key"]

_ROOT = Path(__file__).parents[2]
_MADE_BY = (
    "data/*.py",
    "data/sources/*.py",
    "data/world/*.py",
    "models/*.py",
    "components/search/*.py",
    "flows/arms.py",
    "flows/inputs.py",
    "flows/index.py",
    "flows/train.py",
    "flows/studies/labelled.py",
    "flows/studies/pools.py",
    "flows/studies/scorers.py",
    "flows/studies/stretches.py",
    "flows/studies/*_source.py",
    "flows/studies/next_item.py",
)


@lru_cache(maxsize=1)
def code_hash() -> str:
    """Hex SHA-256 of the code that makes panels: what is changed in it makes them anew."""
    digest = hashlib.sha256()
    for pattern in _MADE_BY:
        for path in sorted(_ROOT.glob(pattern)):
            digest.update(f"{path.relative_to(_ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def panel_key(**made_from: Any) -> str:
    """16 hex digits over what a panel is made from (JSON values), its version and the code."""
    document = made_from | {"panel": PANEL_VERSION, "features": FEATURE_SCHEMA, "code": code_hash()}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
