"""A state's arrays as files, and their content hash. Native formats only: safetensors, Arrow, JSON."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from infra.errors import DataError

__all__ = ["STATE_SCHEMA", "load_arrays", "save_arrays", "state_hash"]

STATE_SCHEMA = 1
Arrays = dict[str, NDArray[Any]]


def state_hash(arrays: Arrays, scalars: dict[str, int], payloads: list[str]) -> str:
    """Hex SHA-256 over all of it, in the order given."""
    digest = hashlib.sha256(f"{STATE_SCHEMA} {sorted(scalars.items())}".encode())
    for name, array in arrays.items():
        digest.update(name.encode())
        digest.update(array.tobytes())
    for payload in payloads:
        digest.update(payload.encode() + b"\n")
    return digest.hexdigest()


def save_arrays(folder: Path, arrays: Arrays, scalars: dict[str, int], payloads: list[str]) -> None:
    """Write a new folder, whole or not at all."""
    beside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    save_file(arrays, beside / "state.safetensors")
    table = pa.table({"payload": pa.array(payloads, pa.string())})
    feather.write_feather(table, str(beside / "payloads.arrow"), compression="zstd")
    (beside / "state.json").write_text(json.dumps({"schema": STATE_SCHEMA, **scalars}))
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def load_arrays(folder: Path) -> tuple[Arrays, dict[str, int], list[str]]:
    """Read what `save_arrays` wrote; raises DataError where it is missing, damaged or of another schema."""
    try:
        scalars = json.loads((folder / "state.json").read_text())
        arrays = {name: array.copy() for name, array in load_file(folder / "state.safetensors").items()}
        payloads = feather.read_table(str(folder / "payloads.arrow"))["payload"].to_pylist()
    except Exception as error:
        raise DataError(
            f"the state in {folder} cannot be read ({error}); run `shelflife ingest` to publish it anew"
        ) from error
    if scalars["schema"] != STATE_SCHEMA:
        raise DataError(
            f"the state in {folder} has schema {scalars['schema']}, expected {STATE_SCHEMA}; "
            "run `shelflife ingest` to publish it anew"
        )
    return arrays, scalars, payloads
