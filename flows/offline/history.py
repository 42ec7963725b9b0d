"""Manifests of releases that a home has had, those included whose files were removed since.

`flows/offline/tidy.py` removes old releases from the disk; the registry goes on holding their manifests. It
tells what a release was made of, and loads nothing.
"""

from __future__ import annotations

from infra.errors import DataError
from infra.registry import open_registry
from infra.settings import Home
from models.manifest import decode
from models.release import Manifest, read_manifest

__all__ = ["recorded_manifest"]


def recorded_manifest(layout: Home, release_id: str) -> Manifest:
    """The manifest from the disk, else from the registry. DataError where neither has it."""
    try:
        return read_manifest(layout, release_id)
    except DataError as missing:
        try:
            return decode(open_registry(layout.mlflow).manifest(release_id))
        except (DataError, ValueError, TypeError, KeyError, AttributeError):
            raise missing from None
