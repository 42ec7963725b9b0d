"""What a release is made of, and which artifacts belong together.

Plain values: an artifact's files by content hash, its needs and history; a manifest of them.
It touches no disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, cast

from infra.errors import DataError

__all__ = [
    "ARTIFACTS",
    "OPTIONAL",
    "Artifact",
    "Manifest",
    "check_name",
    "decode",
    "diff",
    "make_release",
    "release_id_of",
]

ARTIFACTS = (
    "text_classifier",
    "image_classifier",
    "image_index",
    "encoder",
    "lexical_index",
    "vector_index",
    "speller",
    "ranker",
)
# A catalogue without categories, photos, words or clicks is still a catalogue.
OPTIONAL = frozenset({"text_classifier", "image_classifier", "image_index", "speller", "ranker"})

# What artifacts of one release have to agree on. The feature schema's other side is the code itself.
_EMBEDDING, _FEATURES, _PHOTOS = "embedding_space", "feature_schema", "photo_space"


@dataclass(frozen=True)
class Artifact:
    """One trained or built thing: its files (relative path → hex SHA-256), needs and history."""

    name: str
    version: str
    files: dict[str, str]
    size: int  # bytes
    requires: dict[str, str] = field(default_factory=dict)
    provides: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    snapshot: dict[str, Any] = field(default_factory=dict)
    created_us: int = 0

    @property
    def content(self) -> str:
        """Hex SHA-256 over names and contents of the files: equal content, equal behaviour."""
        return _digest(self.files)


@dataclass(frozen=True)
class Manifest:
    """The artifacts of one release. `release_id` is a hash of artifacts, watermark and created_us."""

    release_id: str
    created_us: int
    watermark_us: int
    parent: str
    artifacts: dict[str, Artifact]
    feature_schema: str = ""
    embedding_space: str = ""
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(a.size for a in self.artifacts.values())


def make_release(
    artifacts: Mapping[str, Artifact],
    *,
    watermark_us: int,
    created_us: int,
    parent: str = "",
    metrics: Mapping[str, float] | None = None,
) -> Manifest:
    """A manifest of artifacts that belong together; DataError names both sides where they do not."""
    for name, artifact in artifacts.items():
        check_name(name)
        if artifact.name != name:
            raise DataError(f"artifact {artifact.name!r} was given as {name!r}; expected one name")
    absent = [n for n in ARTIFACTS if n not in artifacts and n not in OPTIONAL]
    if absent:
        raise DataError(f"a release without {absent[0]}; expected at least the artifacts {_required()}")
    space = _agreed(artifacts, _EMBEDDING)
    schema = _agreed(artifacts, _FEATURES)
    _agreed(artifacts, _PHOTOS)
    ordered = {n: artifacts[n] for n in ARTIFACTS if n in artifacts}
    return Manifest(
        release_id=release_id_of(ordered, watermark_us, created_us),
        created_us=created_us,
        watermark_us=watermark_us,
        parent=parent,
        artifacts=ordered,
        feature_schema=schema,
        embedding_space=space,
        metrics=dict(metrics or {}),
    )


def diff(a: Manifest | None, b: Manifest) -> dict[str, Any]:
    """What installing `b` over `a` changes: {"changed", "added", "removed", "unchanged", sizes in bytes}."""
    old = a.artifacts if a else {}
    new = b.artifacts
    changed = [n for n in new if n in old and new[n].content != old[n].content]
    added = [n for n in new if n not in old]
    return {
        "changed": changed,
        "added": added,
        "removed": [n for n in old if n not in new],
        "unchanged": [n for n in new if n in old and n not in changed],
        "total_size": b.size,
        "changed_size": sum(new[n].size for n in changed + added),
    }


def decode(document: dict[str, Any]) -> Manifest:
    """The manifest that `asdict` gave; ValueError, TypeError or KeyError if it is not one."""
    artifacts = {n: _build(Artifact, a) for n, a in document["artifacts"].items()}
    return cast(Manifest, _build(Manifest, document | {"artifacts": artifacts}))


def release_id_of(artifacts: Mapping[str, Artifact], watermark_us: int, created_us: int) -> str:
    """ "r-" and 12 hex digits over what the release does; parent and metrics do not count."""
    parts = {n: [a.version, a.files, a.requires, a.provides] for n, a in artifacts.items()}
    return "r-" + _digest({"artifacts": parts, "watermark_us": watermark_us, "created_us": created_us})[:12]


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _agreed(artifacts: Mapping[str, Artifact], key: str) -> str:
    """The one value of `key` among what is provided and required, "" if nobody names it."""
    provided = {n: a.provides[key] for n, a in artifacts.items() if key in a.provides}
    required = {n: a.requires[key] for n, a in artifacts.items() if key in a.requires}
    claims = [(f"{n} provides", v) for n, v in provided.items()]
    claims += [(f"{n} requires", v) for n, v in required.items()]
    for who, value in claims[1:]:
        if value != claims[0][1]:
            raise DataError(
                f"artifacts do not belong together: {claims[0][0]} {key} {claims[0][1]}, {who} {value}; "
                f"build {who.split()[0]} anew against the other"
            )
    if required and not provided and key != _FEATURES:
        raise DataError(f"{next(iter(required))} requires {key} {claims[0][1]}, and no artifact provides one")
    return claims[0][1] if claims else ""


def _build(kind: type[Any], document: Mapping[str, Any]) -> Any:
    unknown = set(document) - {f.name for f in fields(kind)}
    if unknown:
        raise ValueError(f"unknown key {sorted(unknown)[0]!r}, as a newer Shelflife may write")
    return kind(**document)


def check_name(name: str) -> None:
    """DataError unless it is the name of an artifact."""
    if name not in ARTIFACTS:
        raise DataError(f"unknown artifact {name!r}; expected one of {', '.join(ARTIFACTS)}")


def _required() -> str:
    return ", ".join(n for n in ARTIFACTS if n not in OPTIONAL)
