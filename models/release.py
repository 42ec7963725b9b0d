"""Releases: which artifacts belong together, where their files lie, and which one is champion.

A release is a manifest of content-addressed files. Publishing is atomic, loading verifies every
file and reuses what did not change. It knows the artifacts' names and needs, not their insides.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import DataError
from infra.files import sync_dir, write_atomic
from infra.give_way import give_way
from infra.settings import Home
from models.blobs import link_files, put_files, sweep, verify_files
from models.encoder import Encoder
from models.lexical_index import LexicalIndex
from models.manifest import (
    ARTIFACTS,
    OPTIONAL,
    Artifact,
    Manifest,
    check_name,
    decode,
    diff,
    make_release,
    release_id_of,
)
from models.speller import Speller
from models.text_classifier import TextClassifier
from models.vector_index import VectorIndex

if TYPE_CHECKING:
    from models.image_classifier import ImageClassifier
    from models.image_index import ImageIndex
    from models.ranker import Ranker

__all__ = [
    "ARTIFACTS",
    "OPTIONAL",
    "Artifact",
    "Manifest",
    "Release",
    "champion",
    "champion_record",
    "diff",
    "list_releases",
    "load_release",
    "make_release",
    "prune",
    "publish",
    "put_artifact",
    "read_manifest",
    "release_folder",
    "set_champion",
]

_MANIFEST, _CHAMPION = "manifest.json", "champion.json"


@dataclass(frozen=True, eq=False)
class Release:
    """A loaded release: all that a replica needs beside the state; None where it has no such artifact."""

    manifest: Manifest
    encoder: Encoder
    lexical_index: LexicalIndex
    vector_index: VectorIndex
    text_classifier: TextClassifier | None = None
    image_classifier: ImageClassifier | None = None
    image_index: ImageIndex | None = None
    speller: Speller | None = None
    ranker: Ranker | None = None

    @property
    def release_id(self) -> str:
        """The id that replies and events carry."""
        return self.manifest.release_id

    @cached_property
    def learnt_from_clicks(self) -> bool:
        """Whether clicks taught the encoder; taken for granted where its record does not say."""
        encoder = self.manifest.artifacts.get("encoder")
        return encoder is None or encoder.metrics.get("pairs", 1.0) > 0

    @property
    def item_ids(self) -> NDArray[np.int64]:
        """Ids of the items that the vector index holds: int64 [n], memory-mapped."""
        return self.vector_index.item_ids

    @property
    def item_vectors(self) -> NDArray[np.float32]:
        """Their vectors: float32 [n, dim], memory-mapped."""
        return self.vector_index.vectors


def put_artifact(
    layout: Home,
    name: str,
    folder: Path,
    *,
    version: str,
    requires: Mapping[str, str] | None = None,
    provides: Mapping[str, str] | None = None,
    metrics: Mapping[str, float] | None = None,
    snapshot: Mapping[str, Any] | None = None,
    created_us: int,
) -> Artifact:
    """Store a saved artifact's files as blobs; idempotent. Lock files are left out."""
    check_name(name)
    files, size = put_files(layout.blobs, folder)
    return Artifact(
        name=name,
        version=version,
        files=files,
        size=size,
        requires=dict(requires or {}),
        provides=dict(provides or {}),
        metrics=dict(metrics or {}),
        snapshot=dict(snapshot or {}),
        created_us=created_us,
    )


def publish(layout: Home, manifest: Manifest) -> Path:
    """Make `releases/<id>/` hold the manifest and hard links to its blobs, all at once; idempotent.

    Published already, what was damaged since is linked anew.
    """
    target = release_folder(layout, manifest.release_id)
    if (target / _MANIFEST).is_file():
        _mend(layout, manifest, target)
        return target
    layout.releases.mkdir(parents=True, exist_ok=True)
    beside = layout.releases / f".{manifest.release_id}.{os.getpid()}.{time.monotonic_ns()}.tmp"
    try:
        for artifact in manifest.artifacts.values():
            link_files(layout.blobs, artifact.files, beside / artifact.name)
        write_atomic(beside / _MANIFEST, json.dumps(asdict(manifest), indent=1).encode())
        try:
            beside.rename(target)
        except OSError:
            if not (target / _MANIFEST).is_file():  # else another process published the same release
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    sync_dir(layout.releases)
    return target


def _mend(layout: Home, manifest: Manifest, target: Path) -> None:
    for name, artifact in manifest.artifacts.items():
        for file, digest in artifact.files.items():
            try:
                verify_files(target / name, {file: digest})
            except DataError:
                beside = layout.releases / f".{manifest.release_id}.{os.getpid()}.{time.monotonic_ns()}.tmp"
                try:
                    link_files(layout.blobs, {file: digest}, beside)
                    (target / name / file).parent.mkdir(parents=True, exist_ok=True)
                    (beside / file).replace(target / name / file)
                finally:
                    shutil.rmtree(beside, ignore_errors=True)


def read_manifest(layout: Home, release_id: str) -> Manifest:
    """The manifest of a published release; DataError if it is unknown, damaged or altered."""
    path = release_folder(layout, release_id) / _MANIFEST
    try:
        manifest = decode(json.loads(path.read_bytes()))
        expected = release_id_of(manifest.artifacts, manifest.watermark_us, manifest.created_us)
    except FileNotFoundError:
        known = ", ".join(m for m in _release_ids(layout)) or "none"
        raise DataError(f"no release {release_id!r}; published are: {known}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error}); publish the release again") from error
    if not manifest.release_id == expected == release_id:
        raise DataError(f"{path} holds release {expected}, expected {release_id}; publish the release again")
    return manifest


def load_release(layout: Home, release_id: str, *, previous: Release | None = None) -> Release:
    """Open a published release. Every file that is read has its SHA-256 verified first.

    Artifacts whose files `previous` holds too are the very same objects, neither read nor verified
    again. Raises DataError that names the file, or both sides of what does not belong together.
    """
    manifest = read_manifest(layout, release_id)
    make_release(manifest.artifacts, watermark_us=manifest.watermark_us, created_us=manifest.created_us)
    folder = release_folder(layout, release_id)
    loaded: dict[str, Any] = {}
    for name, artifact in manifest.artifacts.items():
        old = previous.manifest.artifacts.get(name) if previous else None
        if old is not None and old.content == artifact.content:
            loaded[name] = getattr(previous, name)
            continue
        verify_files(folder / name, artifact.files)
        give_way()
        loaded[name] = _load_artifact(name, folder / name)
        give_way()
    release = Release(manifest, **loaded)
    _check_loaded(release)
    return release


def list_releases(layout: Home) -> list[Manifest]:
    """All published releases that can be read, oldest first."""
    found = []
    for release_id in _release_ids(layout):
        try:
            found.append(read_manifest(layout, release_id))
        except DataError:  # pruned meanwhile, or damaged: loading it says so
            continue
    return sorted(found, key=lambda m: (m.created_us, m.release_id))


def set_champion(layout: Home, release_id: str, *, at_us: int, by: str) -> None:
    """Point replicas at a published release. `by` says who or what decided."""
    read_manifest(layout, release_id)
    try:
        previous = champion(layout)
    except DataError:  # a damaged pointer is mended by this
        previous = None
    record = {"release_id": release_id, "at_us": at_us, "by": by, "previous": previous}
    write_atomic(layout.releases / _CHAMPION, json.dumps(record).encode())


def champion(layout: Home) -> str | None:
    """The id of the release that replicas should serve, or None before the first."""
    record = champion_record(layout)
    return None if record is None else str(record["release_id"])


def champion_record(layout: Home) -> dict[str, Any] | None:
    """The pointer: {"release_id", "at_us", "by", "previous"}."""
    path = layout.releases / _CHAMPION
    try:
        record = json.loads(path.read_bytes())
        return {k: record[k] for k in ("release_id", "at_us", "by", "previous")}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); promote a release again") from error


def prune(layout: Home, keep: Iterable[str], *, grace_s: float = 3_600.0) -> dict[str, int]:
    """Remove all releases but `keep` and the champion, then blobs that none refers to.

    Blobs put within the last `grace_s` seconds stay: their release may not be published yet.
    Raises DataError, before anything is removed, if a kept release cannot be read.
    """
    current = champion(layout)
    kept = set(keep) | ({current} if current else set())
    referenced: set[str] = set()
    for release_id in kept:
        for artifact in read_manifest(layout, release_id).artifacts.values():
            referenced.update(artifact.files.values())
    removed = 0
    for release_id in _release_ids(layout):
        if release_id not in kept:
            gone = layout.releases / f".{release_id}.{time.monotonic_ns()}.tmp"
            release_folder(layout, release_id).rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
            removed += 1
    blobs, size = sweep(layout.blobs, referenced, grace_s=grace_s)
    return {"releases": removed, "blobs": blobs, "bytes": size}


def release_folder(layout: Home, release_id: str) -> Path:
    """`releases/<id>/`; DataError for what cannot be an id."""
    if not release_id.startswith("r-") or not release_id[2:].isalnum():
        raise DataError(f"{release_id!r} is not a release id; expected r- and 12 hex digits")
    return layout.releases / release_id


def _release_ids(layout: Home) -> list[str]:
    return sorted(p.name for p in layout.releases.glob("r-*") if (p / _MANIFEST).is_file())


def _load_artifact(name: str, folder: Path) -> Any:
    match name:
        case "ranker":
            from models.ranker import Ranker

            return Ranker.load(folder)
        case "image_classifier":
            from models.image_classifier import ImageClassifier

            return ImageClassifier.load(folder)
        case "image_index":
            from models.image_index import ImageIndex

            return ImageIndex.load(folder)
        case "text_classifier":
            return TextClassifier.load(folder)
        case "encoder":
            return Encoder.load(folder)
        case "lexical_index":
            return LexicalIndex.load(folder)
        case "vector_index":
            return VectorIndex.load(folder)
        case "speller":
            return Speller.load(folder)
    raise DataError(f"unknown artifact {name!r}; expected one of {', '.join(ARTIFACTS)}")


def _check_loaded(release: Release) -> None:
    """The manifest's claims against the things themselves."""
    claimed, found = release.manifest.embedding_space, release.encoder.space_id
    if claimed and claimed != found:
        raise DataError(
            f"release {release.release_id} says embedding space {claimed}, its encoder has {found}"
        )
    if release.encoder.dim != release.vector_index.dim:
        raise DataError(
            f"release {release.release_id}: the encoder's vectors have {release.encoder.dim} numbers, "
            f"the vector index's {release.vector_index.dim}; encode the items again"
        )
    if release.manifest.feature_schema:
        from models.candidate_features import FEATURE_SCHEMA

        if release.manifest.feature_schema != FEATURE_SCHEMA:
            raise DataError(
                f"release {release.release_id} was trained on feature schema "
                f"{release.manifest.feature_schema}, this code has {FEATURE_SCHEMA}; train the ranker again"
            )
