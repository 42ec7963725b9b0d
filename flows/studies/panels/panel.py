"""What a study reads, extracted once: labelled rows for training, and slices of queries to score on.

A panel is the same for every source: a simulated world, a real log, the user's own home. It holds
features as of each request, so that a model of any age, fraction and window is trained and scored
without replaying anything. It knows no policy and no model.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.fractions import in_fraction
from infra.clock import DAY_US
from infra.errors import DataError
from infra.files import write_atomic
from models.metrics import grouped_dcg
from models.training_rows import TrainingRows

__all__ = ["DEPTH", "PANEL_VERSION", "Panel", "Slice"]

DEPTH = 10
PANEL_VERSION = 1  # raise when the layout or the meaning of a panel changes
_SLICE_ARRAYS = ("groups", "item_ids", "gains", "ideal", "fresh", "frozen", "known", "query_ids", "clusters")


@dataclass(frozen=True)
class Slice:
    """Queries of one stretch [start_us, end_us), each with one fixed pool of candidates.

    `groups` int32 [g]: pool sizes; `item_ids` int64 [n]; `gains` float64 [n]; `ideal` float64 [g]:
    DCG@10 of the best order there could be, of all items, not of the pool alone; `fresh`, `frozen`
    float32 [n, F]: features by the state as of the query, and as of the horizon's start; `known`
    bool [n]: whether the item was there at the horizon's start (the frozen arm ranks the others last);
    `query_ids`, `clusters` int64 [g]: the request, and its session or user. `extra`: what only some
    learners read.
    """

    start_us: int
    end_us: int
    groups: NDArray[np.int32]
    item_ids: NDArray[np.int64]
    gains: NDArray[np.float64]
    ideal: NDArray[np.float64]
    fresh: NDArray[np.float32]
    frozen: NDArray[np.float32]
    known: NDArray[np.bool_]
    query_ids: NDArray[np.int64]
    clusters: NDArray[np.int64]
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def ndcg(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """NDCG@10 of each query when its pool is ordered by `scores` float64 [n]: float64 [g]."""
        got = grouped_dcg(scores, self.gains, self.groups, DEPTH)
        return np.divide(got, self.ideal, out=np.zeros(len(got)), where=self.ideal > 0)


@dataclass(frozen=True)
class Panel:
    """Rows and slices of one source.

    `key`: hash of all that it was made from; `names`, `categorical`: of the features; `rows`: every
    labelled request from the first day on, by time; `label_us` int64 [g]: when a request's labels were
    known; `first_us`: of the source; [horizon_us, end_us): the stretch that policies are compared on;
    `resolution_us`: no shorter interval means anything on this source's time stamps; `about`: what a
    report says of the source (JSON). `extra`: what only some learners read.
    """

    source: str
    key: str
    names: tuple[str, ...]
    categorical: tuple[int, ...]
    rows: TrainingRows
    label_us: NDArray[np.int64]
    slices: tuple[Slice, ...]
    first_us: int
    horizon_us: int
    end_us: int
    resolution_us: int
    about: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def horizon_d(self) -> float:
        """Days of the horizon."""
        return (self.end_us - self.horizon_us) / DAY_US

    def training(self, trained_us: int, *, window_us: int | None, fraction: float) -> NDArray[np.bool_]:
        """The requests that a training at `trained_us` reads: bool [g].

        Their labels were known by then, they are no older than the window, and their session is of the
        nested fraction.
        """
        keep = self.label_us <= trained_us
        if window_us is not None:
            keep &= self.rows.time_us > trained_us - window_us
        return keep & in_fraction(self.rows.session_ids, fraction, salt="session")

    def check(self) -> None:
        """Raise DataError for what no study can read. NaN among features is what was not known."""
        wrong = {
            "features of labelled rows": np.isinf(self.rows.features),
            "labels of rows": np.less(self.rows.labels, 0),
        }
        for k, part in enumerate(self.slices):
            wrong[f"features of slice {k}"] = np.isinf(part.fresh) | np.isinf(part.frozen)
            wrong[f"gains of slice {k}"] = ~(np.isfinite(part.gains) & (part.gains >= 0))
            wrong[f"ideals of slice {k}"] = ~(np.isfinite(part.ideal) & (part.ideal >= 0))
        for what, bad in wrong.items():
            if bad.any():
                raise DataError(
                    f"{int(bad.sum()):,} {what} of {self.source} are infinite, below 0 or no number; "
                    "expected finite ones: see what the log has there, and import it again"
                )

    def save(self, folder: Path) -> None:
        """Write the panel whole: beside the folder first, then renamed. DataError where `check` finds one.

        What could be written of it before an error is removed.
        """
        self.check()
        beside = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(beside, ignore_errors=True)
        try:
            self._write(beside)
            shutil.rmtree(folder, ignore_errors=True)
            beside.rename(folder)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise

    def _write(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        arrays: dict[str, NDArray[Any]] = {f.name: getattr(self.rows, f.name) for f in fields(TrainingRows)}
        arrays |= {"label_us": self.label_us} | {f"extra.{k}": v for k, v in self.extra.items()}
        for i, part in enumerate(self.slices):
            arrays |= {f"slice{i}.{n}": getattr(part, n) for n in _SLICE_ARRAYS}
            arrays |= {f"slice{i}.extra.{k}": v for k, v in part.extra.items()}
        for name, values in arrays.items():
            np.save(folder / f"{name}.npy", values)
        about = {
            "version": PANEL_VERSION,
            "source": self.source,
            "key": self.key,
            "names": self.names,
            "categorical": self.categorical,
            "first_us": self.first_us,
            "horizon_us": self.horizon_us,
            "end_us": self.end_us,
            "resolution_us": self.resolution_us,
            "slices": [[s.start_us, s.end_us] for s in self.slices],
            "about": dict(self.about),
        }
        write_atomic(folder / "panel.json", json.dumps(about).encode())

    @classmethod
    def load(cls, folder: Path) -> Panel:
        """Read a panel; large arrays stay on disk (memory-mapped). DataError for one of another version."""
        about = json.loads((folder / "panel.json").read_text())
        if about["version"] != PANEL_VERSION:
            raise DataError(
                f"{folder} is a panel of version {about['version']}, expected {PANEL_VERSION}; delete it"
            )
        arrays = {p.name.removesuffix(".npy"): np.load(p, mmap_mode="r") for p in folder.glob("*.npy")}

        def extra(prefix: str) -> dict[str, NDArray[Any]]:
            head = f"{prefix}extra."
            return {n.removeprefix(head): v for n, v in arrays.items() if n.startswith(head)}

        slices = tuple(
            Slice(
                since, until, **{n: arrays[f"slice{i}.{n}"] for n in _SLICE_ARRAYS}, extra=extra(f"slice{i}.")
            )
            for i, (since, until) in enumerate(about["slices"])
        )
        return cls(
            source=about["source"],
            key=about["key"],
            names=tuple(about["names"]),
            categorical=tuple(about["categorical"]),
            rows=TrainingRows(**{f.name: arrays[f.name] for f in fields(TrainingRows)}),
            label_us=arrays["label_us"],
            slices=slices,
            first_us=about["first_us"],
            horizon_us=about["horizon_us"],
            end_us=about["end_us"],
            resolution_us=about["resolution_us"],
            about=about["about"],
            extra=extra(""),
        )
