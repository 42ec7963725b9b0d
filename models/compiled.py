"""The ranker's trees as machine code for this host (lleaves), checked for parity before use.

Compiled files are keyed by CPU and toolchain, live in a local cache, and are never taken from
elsewhere. Compilation runs in a process of its own at niceness 19:

    python -m models.compiled MODEL.txt CACHE_DIR
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.files import sha256_file

__all__ = ["PARITY", "compile_ranker", "compiled_path", "host_key", "load_compiled"]

PARITY = 1e-9  # largest difference from the interpreted Booster that is let through


@lru_cache(maxsize=1)
def host_key() -> str:
    """12 hex digits that name this CPU and toolchain."""
    about = [platform.machine(), version("lleaves"), version("llvmlite"), version("lightgbm")]
    info = Path("/proc/cpuinfo")
    if info.exists():
        wanted = ("model name", "flags", "CPU part", "Features")
        about += sorted({line for line in info.read_text().splitlines() if line.startswith(wanted)})
    else:
        about.append(platform.processor())
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:12]


def compiled_path(model_file: Path, cache: Path) -> Path:
    """Where the compiled form of a model lies on this host."""
    return cache / host_key() / f"{sha256_file(model_file)}.o"


def compile_ranker(model_file: Path, cache: Path, *, timeout_s: float = 300) -> Path | None:
    """Compile a LightGBM text model in a process of its own; None where that does not work here."""
    target = compiled_path(model_file, cache)
    if target.exists():
        return target
    root = Path(__file__).resolve().parent.parent
    try:
        done = subprocess.run(
            [sys.executable, "-m", "models.compiled", str(model_file), str(cache)],
            cwd=root,
            timeout=timeout_s,
            capture_output=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return target if done.returncode == 0 and target.exists() else None


def load_compiled(
    model_file: Path, cache: Path, probe: NDArray[np.float32], expected: NDArray[np.float64]
) -> Any | None:
    """The compiled model, or None where it is absent or does not agree with `expected` on `probe`.

    `probe` float32 [n, F]; `expected` float64 [n], the Booster's raw scores.
    """
    path = compiled_path(model_file, cache)
    if not path.exists():
        return None
    with _without_pandas():
        import lleaves

    model = lleaves.Model(model_file=str(model_file))
    model.compile(cache=str(path), raw_score=True)
    found = model.predict(probe.astype(np.float64), n_jobs=1)
    if not np.allclose(found, expected, rtol=0, atol=PARITY):
        return None
    return model


@contextmanager
def _without_pandas() -> Iterator[None]:
    """lleaves imports pandas where it can, only to accept its frames: half a second and 60 MB a replica."""
    absent = "pandas" not in sys.modules
    if absent:
        sys.modules["pandas"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if absent:
            del sys.modules["pandas"]


def _main(model_file: Path, cache: Path) -> None:
    import lleaves

    os.nice(max(0, 19 - os.nice(0)))
    target = compiled_path(model_file, cache)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_suffix(f".{os.getpid()}.tmp")
    lleaves.Model(model_file=str(model_file)).compile(cache=str(beside), raw_score=True)
    beside.replace(target)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
