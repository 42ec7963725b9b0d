"""Where a training under way keeps what it has learnt, so that one that was killed goes on from there.

One file a training: arrays and plain notes in safetensors, whole or absent, named by a key over what is
trained on what. A file of another key, or a damaged one, counts for nothing. It knows no model.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from infra.files import write_atomic
from models.fitting import batches

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Checkpoint", "Descent", "Saved", "code_key"]

EVERY_S = 2.0  # of work that a kill may cost; a save takes some 20 ms
_PACKAGES = ("lightgbm", "numpy", "torch")  # another version of one of them would learn otherwise


@dataclass(frozen=True)
class Saved:
    """What a checkpoint held."""

    arrays: dict[str, NDArray[Any]]
    notes: dict[str, Any]


class Checkpoint:
    """The file of one training. `key`: equal keys, equal trainings."""

    def __init__(self, path: Path, key: str, *, every_s: float = EVERY_S) -> None:
        self.path = path
        self.key = key
        self.every_s = every_s
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._last >= self.every_s

    def save(self, arrays: Mapping[str, NDArray[Any]], notes: Mapping[str, Any]) -> None:
        """Keep this in place of what was kept before. `notes`: what JSON holds."""
        from safetensors.numpy import save

        about = json.dumps({"key": self.key, "notes": dict(notes)})
        whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        write_atomic(self.path, save(whole, metadata={"about": about}))
        self._last = time.monotonic()

    def load(self) -> Saved | None:
        """What was kept last; None if there is nothing of this key that can be read."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, "np") as held:
                about = json.loads((held.metadata() or {})["about"])
                if about["key"] != self.key:
                    return None
                return Saved({name: held.get_tensor(name) for name in held.keys()}, about["notes"])  # noqa: SIM118
        except (OSError, ValueError, KeyError, SafetensorError):
            return None


@lru_cache(maxsize=8)
def code_key(*folders: Path) -> str:
    """Names the modules in these folders and the packages that train; equal keys, equal steps."""
    versions = json.dumps({name: metadata.version(name) for name in _PACKAGES})
    digest = hashlib.sha256(versions.encode())
    for path in (p for folder in folders for p in sorted(folder.glob("*.py"))):
        digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


@dataclass(frozen=True)
class Descent:
    """A training in torch by steps of an optimizer: all that changes from one step to the next.

    `tensors`: weights and running figures, which are changed in place.
    """

    tensors: Mapping[str, Tensor]
    optimizer: Any
    schedule: Any
    checkpoint: Checkpoint | None = None

    def batches(
        self, n: int, size: int, *, epochs: int, rng: np.random.Generator
    ) -> Iterator[NDArray[np.int64]]:
        """The batches of all epochs, or those that a killed training had left: take a step on each.

        The step may draw from `rng`, too. What was learnt is kept every few seconds and at the end.
        """
        saved = self.checkpoint.load() if self.checkpoint is not None else None
        position: dict[str, Any] = {"epoch": 0, "done": 0} if saved is None else self._restore(saved)
        for epoch in range(position["epoch"], epochs):
            resumed = saved is not None and epoch == position["epoch"]
            if resumed:
                rng.bit_generator.state = position["epoch_rng"]
            began = rng.bit_generator.state
            parts = batches(n, size, rng)
            if resumed:
                rng.bit_generator.state = position["rng"]
            for done in range(position["done"] if resumed else 0, len(parts)):
                yield parts[done]
                last = epoch == epochs - 1 and done == len(parts) - 1
                if self.checkpoint is not None and (last or self.checkpoint.due()):
                    now = rng.bit_generator.state
                    where = {"epoch": epoch, "done": done + 1, "epoch_rng": began, "rng": now}
                    self._save(self.checkpoint, where)

    def _save(self, checkpoint: Checkpoint, position: Mapping[str, Any]) -> None:
        arrays = {f"tensor/{name}": t.detach().numpy() for name, t in self.tensors.items()}
        state = self.optimizer.state_dict()
        for number, moments in state["state"].items():
            arrays |= {f"optimizer/{number}/{name}": m.numpy() for name, m in moments.items()}
        notes = {
            "position": position,
            "groups": state["param_groups"],
            "schedule": self.schedule.state_dict(),
        }
        checkpoint.save(arrays, notes)

    def _restore(self, saved: Saved) -> dict[str, Any]:
        import torch

        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(torch.from_numpy(saved.arrays[f"tensor/{name}"]))
        state: dict[int, dict[str, Tensor]] = {}
        for name, array in saved.arrays.items():
            kind, _, rest = name.partition("/")
            if kind == "optimizer":
                number, _, moment = rest.partition("/")
                state.setdefault(int(number), {})[moment] = torch.from_numpy(array)
        self.optimizer.load_state_dict({"state": state, "param_groups": saved.notes["groups"]})
        self.schedule.load_state_dict(saved.notes["schedule"])
        position: dict[str, Any] = saved.notes["position"]
        return position
