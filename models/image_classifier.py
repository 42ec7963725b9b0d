"""Photo → department probabilities and an embedding: a small residual network (He et al., 2015).

Trained with torch on 28×28 grey photos, run by onnxruntime on one thread. It knows pixels and
labels, nothing of items.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import DataError
from infra.files import write_atomic
from models.checkpoints import Checkpoint
from models.residual_network import EMBEDDING_DIM, train

__all__ = ["ImageClassifier"]

_CHUNK = 512  # photos in one run: bounds memory


@dataclass(frozen=True, eq=False)
class ImageClassifier:
    """An ONNX graph for inference and the raw weights for a warm start.

    `report` holds what was measured on held-out photos: accuracy, log_loss, temperature, rows.
    """

    classes: tuple[str, ...]
    onnx: bytes = field(repr=False)
    weights: Mapping[str, NDArray[np.float32]] = field(repr=False)
    report: Mapping[str, float] = field(default_factory=dict)
    _session: Any = field(default=None, repr=False)

    @classmethod
    def fit(
        cls,
        images: NDArray[np.uint8],
        labels: NDArray[np.integer[Any]],
        *,
        classes: Sequence[str],
        seed: int,
        epochs: int = 3,
        init: ImageClassifier | None = None,
        threads: int = 1,
        held: NDArray[np.bool_] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> ImageClassifier:
        """Learn `labels` int [n], indexes into `classes`, of `images` uint8 [n, 28, 28].

        `init` is a warm start; where its classes differ, those of the same name keep their weights.
        `held` bool [n]: photos kept for the temperature; a random tenth where it is not given.
        `checkpoint`: where a killed training goes on from.
        """
        pixels = _pixels(images)
        y = np.asarray(labels, np.int64)
        names = tuple(classes)
        if len(pixels) != len(y) or not len(y):
            raise DataError(f"{len(pixels)} photos and {len(y)} labels; expected one label a photo, and some")
        if y.min() < 0 or y.max() >= len(names):
            raise DataError(f"labels from {y.min()} to {y.max()}; expected 0 to {len(names) - 1}")
        start = _start(init, names) if init else None
        trained = train(
            pixels,
            y,
            len(names),
            seed=seed,
            epochs=epochs,
            start=start,
            threads=threads,
            knows_all=init is not None and set(names) <= set(init.classes),
            held=held,
            checkpoint=checkpoint,
        )
        return cls(names, trained.onnx, trained.weights, trained.report, _open(trained.onnx))

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Calibrated probabilities of photos uint8 [n, 28, 28]: float32 [n, C]."""
        return self._run("probabilities", images, len(self.classes))

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the last layer sees of photos uint8 [n, 28, 28]: float32 [n, 64]."""
        return self._run("embedding", images, EMBEDDING_DIM)

    def see(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`predict` and `embed` at the price of one: float32 [n, C] and [n, 64]."""
        pixels = _pixels(images)
        if not len(pixels):
            return self.predict(pixels), self.embed(pixels)
        runs = [
            self._session.run(["probabilities", "embedding"], {"images": pixels[i : i + _CHUNK]})
            for i in range(0, len(pixels), _CHUNK)
        ]
        probabilities, embeddings = (np.concatenate(parts) for parts in zip(*runs, strict=True))
        return probabilities, embeddings

    @property
    def photo_space(self) -> str:
        """Names what its embeddings mean: equal graphs, equal spaces."""
        return hashlib.sha256(self.onnx).hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Write `model.onnx`, `weights.safetensors` and `classes.json`."""
        from safetensors.numpy import save

        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "model.onnx", self.onnx)
        write_atomic(folder / "weights.safetensors", save(dict(self.weights)))
        document = {"classes": list(self.classes), "report": dict(self.report)}
        write_atomic(folder / "classes.json", json.dumps(document).encode())

    @classmethod
    def load(cls, folder: Path) -> ImageClassifier:
        """Read a saved classifier."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            graph = (folder / "model.onnx").read_bytes()
            weights = load_file(folder / "weights.safetensors")
            document = json.loads((folder / "classes.json").read_bytes())
            classes, report = tuple(document["classes"]), dict(document["report"])
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise DataError(f"no image classifier in {folder} ({error}); train it again") from error
        session = _open(graph)
        found = session.get_outputs()[0].shape[1]
        if found != len(classes):
            raise DataError(
                f"{folder} holds a graph for {found} classes, {len(classes)} names; train it again"
            )
        return cls(classes, graph, weights, report, session)

    def _run(self, output: str, images: NDArray[np.uint8], width: int) -> NDArray[np.float32]:
        pixels = _pixels(images)
        out = np.empty((len(pixels), width), np.float32)
        for i in range(0, len(pixels), _CHUNK):
            out[i : i + _CHUNK] = self._session.run([output], {"images": pixels[i : i + _CHUNK]})[0]
        return out


def _pixels(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    array = np.asarray(images)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[1:] != (28, 28):
        raise DataError(f"photos of {array.dtype} {list(array.shape)}; expected uint8 [n, 28, 28]")
    return np.ascontiguousarray(array)


def _start(init: ImageClassifier, classes: tuple[str, ...]) -> dict[str, NDArray[np.float32]]:
    """The weights of `init` with a head for `classes`; a new class starts at zero."""
    weights = dict(init.weights)
    head = np.zeros((len(classes), EMBEDDING_DIM), np.float32)
    bias = np.zeros(len(classes), np.float32)
    for i, name in enumerate(classes):
        if name in init.classes:
            old = init.classes.index(name)
            head[i], bias[i] = weights["head.weight"][old], weights["head.bias"][old]
    return weights | {"head.weight": head, "head.bias": bias}


def _open(graph: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no narrower base
        raise DataError(f"the image classifier's graph cannot be opened ({error}); train it again") from error
