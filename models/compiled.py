"""LightGBM's trees as tables that compiled code (`tree_kernel.py`) goes through for many candidates at once.

QuickScorer (Lucchese et al., SIGIR 2015): a tree's leaves are the bits of a word, each condition that an
item fails clears the leaves to its left, and the lowest bit that stays is the item's leaf. Conditions of
one tree are tried for all items of a block at a time; categories come by a table. Scores are the
interpreter's, bit for bit: thresholds are rounded to the float32 that decides alike, trees add in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from infra.errors import DataError
from models.tree_kernel import ALL, scores_into
from models.tree_tables import SPARE_LEAVES, Tables

__all__ = ["CompiledTrees", "compile_trees"]

_MOST_LEAVES = 32
_MOST_CODE = 1 << 20
_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_MISSING_NONE, _MISSING_NAN = 0, 2


@dataclass(frozen=True)
class CompiledTrees:
    """Trees that score; safe to share among threads. `width`: features of an item."""

    tables: Tables
    width: int

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Raw scores float64 [n] of features float32 [n, width]; DataError for fewer features."""
        if features.shape[1] < self.width:  # compiled code would read beyond the rows
            raise DataError(f"{features.shape[1]} features an item; expected {self.width}")
        scores = np.empty(len(features))
        scores_into(np.ascontiguousarray(features, np.float32), self.tables, scores)
        return scores


def compile_trees(model: str) -> CompiledTrees | None:
    """The tables of a model in LightGBM's text form; None for what they do not hold.

    That is: trees of more than 32 leaves, linear leaves, zero taken for missing, averaged output.
    """
    head, *sections = model.split("\nTree=")
    about = _fields(head.splitlines())
    if "average_output" in head.splitlines() or about.get("num_tree_per_iteration", "1") != "1":
        return None
    if sections:
        sections[-1] = sections[-1].split("\nend of trees")[0]
    trees = []
    for section in sections:
        tree = _tree(_fields(section.splitlines()))
        if tree is None:
            return None
        trees.append(tree)
    return CompiledTrees(_tables(trees), int(about["max_feature_idx"]) + 1)


@dataclass
class _Tree:
    leaves: list[float]  # from left to right
    numeric: list[tuple[int, float, bool, int]] = field(default_factory=list)
    categorical: list[tuple[int, list[int], int]] = field(default_factory=list)


def _fields(lines: list[str]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _tree(fields: dict[str, str]) -> _Tree | None:
    values = [float(v) for v in fields["leaf_value"].split()]
    if len(values) > _MOST_LEAVES or fields.get("is_linear", "0") != "0":
        return None
    if len(values) == 1:
        return _Tree(values)
    left, right = ([int(v) for v in fields[f"{side}_child"].split()] for side in ("left", "right"))
    split = [int(v) for v in fields["split_feature"].split()]
    decisions = [int(v) for v in fields["decision_type"].split()]
    thresholds = [float(v) for v in fields["threshold"].split()]
    order: list[int] = []
    below: dict[int, tuple[int, int]] = {}  # node → leaves of its left side, as places [from, to)
    # A stack: a function that calls itself is a circle, which would outlive a dropped release.
    pending = [(0, -1)]  # (node, places before its left side; -1: not gone into yet)
    while pending:
        node, first = pending.pop()
        if node < 0:
            order.append(~node)
        elif first < 0:
            pending += [(node, len(order)), (left[node], -1)]
        else:
            below[node] = (first, len(order))
            pending.append((right[node], -1))
    tree = _Tree([values[leaf] for leaf in order])
    for node, decision in enumerate(decisions):
        first, last = below[node]
        word = ALL & ~(((1 << (last - first)) - 1) << first)
        missing = decision >> 2 & 3
        if decision & _CATEGORICAL:
            codes = _codes(fields, int(thresholds[node]))
            if max(codes, default=0) > _MOST_CODE:
                return None
            tree.categorical.append((split[node], codes, word))
        elif missing == _MISSING_NAN:
            tree.numeric.append((split[node], thresholds[node], not decision & _DEFAULT_LEFT, word))
        elif missing == _MISSING_NONE:  # NaN counts as 0
            tree.numeric.append((split[node], thresholds[node], thresholds[node] < 0, word))
        else:
            return None
    return tree


def _codes(fields: dict[str, str], condition: int) -> list[int]:
    bounds = [int(v) for v in fields["cat_boundaries"].split()]
    held = fields["cat_threshold"].split()[bounds[condition] : bounds[condition + 1]]
    bits = np.unpackbits(np.array([int(word) for word in held], "<u4").view(np.uint8), bitorder="little")
    codes: list[int] = np.flatnonzero(bits).tolist()
    return codes


def _tables(trees: list[_Tree]) -> Tables:
    conditions = [c for tree in trees for c in sorted(tree.numeric)]
    cat_features = sorted({f for tree in trees for f, _, _ in tree.categorical})
    slot_starts, slots = [0], [np.zeros(0, np.int32)]
    cat_words = [np.zeros((0, len(trees)), np.uint32)]
    first_slot = 0
    for feature in cat_features:
        known = sorted({code for _, codes, _ in _on(trees, feature) for code in codes})
        slot_of = np.full(max(known, default=-1) + 2, first_slot, np.int32)
        slot_of[1 + np.array(known, int)] = first_slot + 1 + np.arange(len(known))
        words = np.full((len(known) + 1, len(trees)), ALL, np.uint32)
        for t, codes, word in _on(trees, feature):
            words[[slot for slot, code in enumerate([-1, *known]) if code not in codes], t] &= np.uint32(word)
        slots.append(slot_of)
        slot_starts.append(slot_starts[-1] + len(slot_of))
        cat_words.append(words)
        first_slot += len(words)
    leaves = [value for tree in trees for value in tree.leaves]
    tables = Tables(
        starts=np.cumsum([0, *(len(tree.numeric) for tree in trees)]).astype(np.int32),
        features=np.array([f for f, _, _, _ in conditions], np.int32),
        thresholds=_rounded_down(np.array([t for _, t, _, _ in conditions], np.float64)),
        nan_right=np.array([right for _, _, right, _ in conditions], np.bool_),
        words=np.array([word for _, _, _, word in conditions], np.uint32),
        leaf_starts=np.cumsum([0, *(len(tree.leaves) for tree in trees)]).astype(np.int32),
        leaves=np.array(leaves + [0.0] * SPARE_LEAVES, np.float64),
        cat_features=np.array(cat_features, np.int32),
        slot_starts=np.array(slot_starts, np.int32),
        slots=np.concatenate(slots),
        cat_words=np.concatenate(cat_words),
    )
    for array in tables:
        array.setflags(write=False)  # as mapped ones are: compiled code is of one kind
    return tables


def _on(trees: list[_Tree], feature: int) -> Iterator[tuple[int, set[int], int]]:
    """Conditions on a categorical feature: the tree's number, the codes that go left, the word."""
    for t, tree in enumerate(trees):
        for f, codes, word in tree.categorical:
            if f == feature:
                yield t, set(codes), word


def _rounded_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 not above each: a float32 is above the one where it is above the other."""
    with np.errstate(over="ignore"):
        near = thresholds.astype(np.float32)
    low = np.nextafter(near, np.float32(-np.inf))
    return np.where(near.astype(np.float64) > thresholds, low, near).astype(np.float32)
