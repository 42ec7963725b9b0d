"""Two towers: queries and items as unit vectors whose inner product says how well they fit.

Both towers read one hashed token table, each through a matrix of its own, trained with torch by
in-batch sampled softmax with the logQ correction (Yi et al., RecSys 2019). Untrained it is a random
projection of words and n-grams, which already matches like with like. Encoding is NumPy alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import ConfigError, DataError
from infra.files import write_atomic
from models.checkpoints import Checkpoint, Descent
from models.fitting import TrainableTokens, batches, limited_threads
from models.hashing import TokenTable, tokenise

__all__ = ["Encoder", "item_text"]

BUCKETS = 1 << 15
_WIDTH = 32
_BATCH = (64, 512)  # of few pairs and of many; the others in a batch are the negatives
_LEARNING_RATE = 0.01
_SCALE = 12.0  # of the cosine: sharp enough to tell items of one category apart, soft enough to train
_TITLE_CHARS = 160  # what follows the title has to fit into the 256 characters that are read


def item_text(payload: Mapping[str, Any]) -> str:
    """The text that stands for an item: title, category, brand, colour, material."""
    words = [str(payload.get("title") or "")[:_TITLE_CHARS]]
    words += [str(payload[name]) for name in ("category", "brand", "colour", "material") if payload.get(name)]
    return " ".join(words).strip()


@dataclass(frozen=True, eq=False)
class Encoder:
    """A token table and the two towers' matrices: float32 [dim, dim]."""

    table: TokenTable = field(repr=False)
    query_tower: NDArray[np.float32]
    item_tower: NDArray[np.float32]

    @classmethod
    def fit(
        cls,
        queries: Sequence[str],
        item_texts: Sequence[str],
        weights: Sequence[float] | NDArray[np.floating[Any]],
        *,
        seed: int,
        dim: int = 32,
        init: Encoder | None = None,
        epochs: int = 3,
        threads: int = 1,
        checkpoint: Checkpoint | None = None,
    ) -> Encoder:
        """Learn from pairs: a query [n], the text of the item it led to [n], the pair's weight [n] ≥ 0.

        `init` is a warm start, `checkpoint` where a killed training goes on from. Without pairs the
        result is `init`, or the untrained random projection.
        """
        share = np.asarray(weights, np.float64)
        if not len(queries) == len(item_texts) == len(share):
            raise DataError(
                f"{len(queries)} queries, {len(item_texts)} item texts, {len(share)} weights; "
                "expected one number"
            )
        if not np.all(np.isfinite(share)) or share.min(initial=0.0) < 0:
            raise DataError("weights of pairs are negative or not finite; expected numbers of 0 or more")
        rng = np.random.default_rng(seed)
        if init is None:
            rows = rng.normal(0.0, 1.0 / np.sqrt(dim), (BUCKETS, dim)).astype(np.float32)
            init = cls(TokenTable(rows), np.eye(dim, dtype=np.float32), np.eye(dim, dtype=np.float32))
        elif init.dim != dim:
            raise ConfigError(f"a warm start from vectors of {init.dim} numbers; expected {dim}: start cold")
        if share.sum() == 0:
            return init
        with limited_threads(threads):
            return _train(init, queries, item_texts, share, rng=rng, epochs=epochs, checkpoint=checkpoint)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.table.dim

    @cached_property
    def space_id(self) -> str:
        """Hash of the weights: vectors are comparable only within one space."""
        digest = hashlib.sha256()
        for array in (self.table.rows, self.query_tower, self.item_tower):
            digest.update(array.tobytes())
        return "e-" + digest.hexdigest()[:12]

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of queries: float32 [n, dim]; zeros for a text without words."""
        return _unit(self.table.text_vectors(texts) @ self.query_tower)

    def encode_items(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of `item_text`s: float32 [n, dim]; zeros for a text without words."""
        return _unit(self.table.text_vectors(texts) @ self.item_tower)

    def save(self, folder: Path) -> None:
        """Write `weights.safetensors`."""
        from safetensors.numpy import save

        folder.mkdir(parents=True, exist_ok=True)
        weights = {"table": self.table.rows, "query_tower": self.query_tower, "item_tower": self.item_tower}
        write_atomic(folder / "weights.safetensors", save(weights))

    @classmethod
    def load(cls, folder: Path) -> Encoder:
        """Read a saved encoder."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            weights = load_file(folder / "weights.safetensors")
            table, query, item = (weights[n] for n in ("table", "query_tower", "item_tower"))
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise DataError(f"no encoder in {folder} ({error}); train it again") from error
        dim = table.shape[-1]
        if table.ndim != 2 or query.shape != (dim, dim) or item.shape != (dim, dim):
            raise DataError(
                f"{folder} holds towers {query.shape}, {item.shape} for vectors of {dim}; train it again"
            )
        return cls(TokenTable(table), query, item)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    norms[norms == 0.0] = 1.0
    return np.asarray(vectors / norms[:, None], np.float32)


def _train(
    init: Encoder,
    queries: Sequence[str],
    item_texts: Sequence[str],
    weights: NDArray[np.float64],
    *,
    rng: np.random.Generator,
    epochs: int,
    checkpoint: Checkpoint | None,
) -> Encoder:
    import torch
    from torch.nn import functional

    number: dict[str, int] = {}
    item_of = np.fromiter((number.setdefault(t, len(number)) for t in item_texts), np.int64, len(item_texts))
    cut = tokenise([*queries, *number])
    padded = cut.padded(int(min(_WIDTH, max(1, cut.lengths.max(initial=1)))))
    query_words, item_words = padded[: len(queries)], padded[len(queries) :]
    frequency = np.bincount(item_of, minlength=len(number)) / len(item_of)
    log_q = torch.from_numpy(np.log(frequency).astype(np.float32))
    pair_weight = torch.from_numpy((weights / weights.mean()).astype(np.float32))

    words = TrainableTokens(init.table.rows, cut.vocabulary)
    wq = torch.nn.Parameter(torch.from_numpy(init.query_tower.copy()))
    wi = torch.nn.Parameter(torch.from_numpy(init.item_tower.copy()))
    optimizer = torch.optim.Adam([words.parameter, wq, wi], lr=_LEARNING_RATE)
    size = int(np.clip(len(queries) // 16, *_BATCH))
    steps = epochs * len(batches(len(queries), size, np.random.default_rng(0)))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=max(steps, 1))
    tensors = {"words": words.parameter, "query_tower": wq, "item_tower": wi}
    descent = Descent(tensors, optimizer, schedule, checkpoint)
    for part in descent.batches(len(queries), size, epochs=epochs, rng=rng):
        items = torch.from_numpy(item_of[part])
        q = functional.normalize(words.text_vectors(query_words[part]) @ wq, dim=1)
        i = functional.normalize(words.text_vectors(item_words[item_of[part]]) @ wi, dim=1)
        # An item in the batch is a negative with probability ∝ its frequency: take that out again.
        logits = _SCALE * (q @ i.T) - log_q[items][None, :]
        same = (items[:, None] == items[None, :]) & ~torch.eye(len(items), dtype=torch.bool)
        logits = logits.masked_fill(same, float("-inf"))
        losses = functional.cross_entropy(logits, torch.arange(len(items)), reduction="none")
        loss = (losses * pair_weight[torch.from_numpy(part)]).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return Encoder(TokenTable(words.rows()), wq.detach().numpy().copy(), wi.detach().numpy().copy())
