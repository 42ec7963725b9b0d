"""What the torch trainings share: a bound on threads, the trainable half of a token table, calibration.

Everything is seeded by NumPy generators, and no global state of torch is left changed. Torch is
imported inside the functions, so that replicas never pay for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.hashing import MAX_GRAMS, token_buckets

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TrainableTokens", "batches", "fit_temperature", "limited_threads", "softmax"]


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Let torch use `threads` threads inside, and as many as before afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def batches(n: int, size: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """One epoch: a random order of 0..n-1, cut into batches of `size`, the last not smaller than half."""
    order = rng.permutation(n)
    count = max(1, round(n / size))
    return [np.asarray(part, np.int64) for part in np.array_split(order, count)]


class TrainableTokens:
    """The rows of a token table that a vocabulary uses, as one torch parameter; the others stay as they are.

    Training only the used rows (a tenth of a table, for a small shop) makes a step cheap.
    """

    def __init__(self, rows: NDArray[np.float32], vocabulary: list[str]) -> None:
        import torch

        hashed = [token_buckets(token, len(rows)) for token in vocabulary]
        self._base = rows
        self._used = np.unique(np.array([b for h in hashed for b in h], np.int64))
        pad = len(self._used)
        words = np.full(len(hashed) + 1, pad, np.int64)  # the last token is the padding
        grams = np.full((len(hashed) + 1, MAX_GRAMS), pad, np.int64)
        for i, h in enumerate(hashed):
            local = np.searchsorted(self._used, h)
            words[i] = local[0]
            grams[i, : len(h) - 1] = local[1:]
        widest = int((grams != pad).sum(axis=1).max()) if hashed else 1
        self._words = torch.from_numpy(words)
        self._grams = torch.from_numpy(np.ascontiguousarray(grams[:, : max(widest, 1)]))
        start = np.concatenate([rows[self._used], np.zeros((1, rows.shape[1]), np.float32)])
        self.parameter = torch.nn.Parameter(torch.from_numpy(start))

    def text_vectors(self, padded: NDArray[np.int64]) -> Tensor:
        """Mean word vectors of a batch int64 [b, width], padded with the vocabulary's size: [b, dim]."""
        import torch
        from torch.nn import functional

        pad_token = len(self._words) - 1
        lengths = np.maximum((padded != pad_token).sum(axis=1), 1).astype(np.float32)
        distinct, inverse = np.unique(padded, return_inverse=True)
        chosen = torch.from_numpy(distinct)
        pad = self.parameter.shape[0] - 1
        vectors = functional.embedding(self._words[chosen], self.parameter, padding_idx=pad)
        vectors = vectors + functional.embedding_bag(
            self._grams[chosen], self.parameter, mode="mean", padding_idx=pad
        )
        positions = torch.from_numpy(inverse.reshape(padded.shape))
        return functional.embedding_bag(positions, vectors, mode="sum") / torch.from_numpy(lengths)[:, None]

    def rows(self) -> NDArray[np.float32]:
        """The whole table with the trained rows in place: float32 [buckets, dim]."""
        out = self._base.copy()
        out[self._used] = self.parameter.detach().numpy()[:-1]
        return out


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities along the last axis; float32, numerically stable."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), np.float32)


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The temperature in [0.25, 8] with the least log loss on held-out data (Guo et al., 2017).

    `logits` float32 [n, C], `labels` int64 [n] in 0..C-1. Fewer than 20 rows: 1.
    """
    if len(labels) < 20:
        return 1.0

    def loss(log_t: float) -> float:
        z = logits.astype(np.float64) / np.exp(log_t)
        z -= z.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]))

    low, high = np.log(0.25), np.log(8.0)
    for _ in range(30):  # the loss is convex in 1/T, so unimodal in log T: thirds close in on its minimum
        a, b = low + (high - low) / 3, high - (high - low) / 3
        if loss(a) < loss(b):
            high = b
        else:
            low = a
    return float(np.exp((low + high) / 2))
