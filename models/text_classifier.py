"""Text → category probabilities: hashed words and n-grams, mean vector, linear layer (fastText).

Trained with torch on titles and queries, calibrated by temperature on a held-out part, read with
NumPy alone. It knows texts and labels, not where they come from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra.errors import DataError
from infra.files import write_atomic
from models.checkpoints import Checkpoint, Descent
from models.fitting import TrainableTokens, batches, fit_temperature, limited_threads, softmax
from models.hashing import TokenTable, tokenise

__all__ = ["TextClassifier"]

BUCKETS = 1 << 15
_WIDTH = 32  # words of a text that are trained on
_BATCH = (32, 256)  # of few rows and of many
_HELD_OUT = 0.1
_LEARNING_RATE = 0.02


@dataclass(frozen=True, eq=False)
class TextClassifier:
    """`head` float32 [dim, C] and `bias` float32 [C], both already divided by the temperature.

    `report` holds what was measured on the held-out texts: accuracy, log_loss, temperature, rows.
    """

    classes: tuple[str, ...]
    head: NDArray[np.float32]
    bias: NDArray[np.float32]
    table: TokenTable = field(repr=False)
    report: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        labels: Sequence[str],
        *,
        seed: int,
        init: TextClassifier | None = None,
        epochs: int = 4,
        dim: int = 16,
        threads: int = 1,
        checkpoint: Checkpoint | None = None,
    ) -> TextClassifier:
        """Learn `labels` [n] of `texts` [n]. `init` is a warm start: its classes stay, new ones are added.

        A tenth of the distinct texts, all rows of each, is held out for the temperature. `checkpoint`:
        where a killed training goes on from.
        """
        if len(texts) != len(labels):
            raise DataError(f"{len(texts)} texts and {len(labels)} labels; expected one label a text")
        if not len(texts):
            raise DataError("no texts to learn categories from; leave the text classifier out of the release")
        rng = np.random.default_rng(seed)
        kept = init.classes if init else ()
        classes = kept + tuple(sorted(set(labels) - set(kept)))
        code = {name: i for i, name in enumerate(classes)}
        y = np.fromiter((code[name] for name in labels), np.int64, len(labels))
        if init:
            dim = init.table.dim
            rows = init.table.rows
        else:
            rows = rng.normal(0.0, 1.0 / np.sqrt(dim), (BUCKETS, dim)).astype(np.float32)
        head, bias = _start(init, dim, len(classes))
        held = _held_out(texts, rng)
        with limited_threads(threads):
            rows, head, bias = _train(
                texts, y, ~held, rows, head, bias, rng=rng, epochs=epochs, checkpoint=checkpoint
            )
        table = TokenTable(rows)
        return _calibrated(
            classes, head, bias, table, [t for t, h in zip(texts, held, strict=True) if h], y[held]
        )

    def predict(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Calibrated probabilities: float32 [n, C]. A text without words gets the classes' prior."""
        if not len(texts):
            return np.empty((0, len(self.classes)), np.float32)
        return softmax(self.table.text_vectors(texts) @ self.head + self.bias)

    def save(self, folder: Path) -> None:
        """Write `weights.safetensors` and `classes.json`."""
        from safetensors.numpy import save

        folder.mkdir(parents=True, exist_ok=True)
        weights = {"table": self.table.rows, "head": self.head, "bias": self.bias}
        write_atomic(folder / "weights.safetensors", save(weights))
        document = {"classes": list(self.classes), "report": dict(self.report)}
        write_atomic(folder / "classes.json", json.dumps(document).encode())

    @classmethod
    def load(cls, folder: Path) -> TextClassifier:
        """Read a saved classifier."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            weights = load_file(folder / "weights.safetensors")
            document = json.loads((folder / "classes.json").read_bytes())
            classes, report = tuple(document["classes"]), dict(document["report"])
            table, head, bias = weights["table"], weights["head"], weights["bias"]
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise DataError(f"no text classifier in {folder} ({error}); train it again") from error
        if head.shape != (table.shape[1], len(classes)) or bias.shape != (len(classes),):
            raise DataError(f"{folder} holds weights {head.shape} for {len(classes)} classes; train it again")
        return cls(classes, head, bias, TokenTable(table), report)


def _start(
    init: TextClassifier | None, dim: int, classes: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    head, bias = np.zeros((dim, classes), np.float32), np.zeros(classes, np.float32)
    if init:
        known = len(init.classes)
        temperature = np.float32(init.report.get("temperature", 1.0))  # trained weights are those before it
        head[:, :known], bias[:known] = init.head * temperature, init.bias * temperature
    return head, bias


def _held_out(texts: Sequence[str], rng: np.random.Generator) -> NDArray[np.bool_]:
    """All rows of a tenth of the distinct texts; none where there are too few."""
    number: dict[str, int] = {}
    group = np.fromiter((number.setdefault(t, len(number)) for t in texts), np.int64, len(texts))
    if len(number) < 100:
        return np.zeros(len(texts), np.bool_)
    return np.asarray((rng.random(len(number)) < _HELD_OUT)[group], np.bool_)


def _train(
    texts: Sequence[str],
    y: NDArray[np.int64],
    used: NDArray[np.bool_],
    rows: NDArray[np.float32],
    head: NDArray[np.float32],
    bias: NDArray[np.float32],
    *,
    rng: np.random.Generator,
    epochs: int,
    checkpoint: Checkpoint | None,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    import torch
    from torch.nn import functional

    cut = tokenise([t for t, u in zip(texts, used, strict=True) if u])
    labels = y[used]
    padded = cut.padded(int(min(_WIDTH, max(1, cut.lengths.max(initial=1)))))
    words = TrainableTokens(rows, cut.vocabulary)
    w, b = torch.nn.Parameter(torch.from_numpy(head)), torch.nn.Parameter(torch.from_numpy(bias))
    optimizer = torch.optim.Adam([words.parameter, w, b], lr=_LEARNING_RATE)
    size = int(np.clip(len(labels) // 32, *_BATCH))
    steps = epochs * len(batches(len(labels), size, np.random.default_rng(0)))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=max(steps, 1))
    descent = Descent({"words": words.parameter, "head": w, "bias": b}, optimizer, schedule, checkpoint)
    for part in descent.batches(len(labels), size, epochs=epochs, rng=rng):
        logits = words.text_vectors(padded[part]) @ w + b
        loss = functional.cross_entropy(logits, torch.from_numpy(labels[part]))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return words.rows(), w.detach().numpy().copy(), b.detach().numpy().copy()


def _calibrated(
    classes: tuple[str, ...],
    head: NDArray[np.float32],
    bias: NDArray[np.float32],
    table: TokenTable,
    held_texts: Sequence[str],
    held_labels: NDArray[np.int64],
) -> TextClassifier:
    if not len(held_labels):
        return TextClassifier(classes, head, bias, table, {"rows": 0.0, "temperature": 1.0})
    logits = table.text_vectors(held_texts) @ head + bias
    temperature = fit_temperature(logits, held_labels)
    probabilities = softmax(logits / np.float32(temperature))
    right = probabilities[np.arange(len(held_labels)), held_labels]
    report = {
        "accuracy": float(np.mean(probabilities.argmax(axis=1) == held_labels)),
        "log_loss": float(-np.mean(np.log(np.maximum(right, 1e-9)))),
        "rows": float(len(held_labels)),
        "temperature": temperature,
    }
    scale = np.float32(1.0 / temperature)
    return TextClassifier(classes, head * scale, bias * scale, table, report)
