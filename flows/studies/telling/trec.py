"""Runs and qrels in TREC's format from slices and the scores of their candidates, for other people's tools.

One run a policy, one qrels for all. A grade is the gain as a whole number; it knows no model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.studies.panels.panel import Slice
from infra.errors import DataError
from infra.files import write_atomic

__all__ = ["qrels_lines", "run_lines", "write_trec"]


def write_trec(
    dump: Path,
    slices: Sequence[Slice],
    runs: Mapping[str, Sequence[NDArray[np.float64]]],
) -> list[Path]:
    """Write `DUMP.qrels` and a `DUMP.<policy>.run` a policy, each whole; their paths.

    `runs`: by policy, of each slice the scores of its candidates float64 [n]. DataError where the
    numbers do not fit. `dump` may have folders that are not there yet.
    """
    names = {policy: _file_name(policy) for policy in runs}
    if len(set(names.values())) < len(names):
        raise DataError(f"two policies would share a file: {', '.join(sorted(runs))}; name them apart")
    files = {dump.with_name(f"{dump.name}.qrels"): list(qrels_lines(slices))}
    for policy, scores in runs.items():
        if len(scores) != len(slices):
            raise DataError(f"{policy} has scores of {len(scores)} slices; expected {len(slices)}")
        path = dump.with_name(f"{dump.name}.{names[policy]}.run")
        files[path] = list(run_lines(slices, scores, tag=names[policy]))
    for path, lines in files.items():
        write_atomic(path, "".join(f"{line}\n" for line in lines).encode())
    return list(files)


def qrels_lines(slices: Sequence[Slice]) -> Iterable[str]:
    """`query 0 item grade` of every candidate, grade the gain rounded; queries are named slice-query."""
    for number, part in enumerate(slices):
        grades = np.rint(part.gains).astype(np.int64).tolist()
        for query, item, grade in zip(_queries(number, part), part.item_ids.tolist(), grades, strict=True):
            yield f"{query} 0 {item} {grade}"


def run_lines(slices: Sequence[Slice], scores: Sequence[NDArray[np.float64]], *, tag: str) -> Iterable[str]:
    """`query Q0 item rank score tag` of every candidate, best first; equal scores keep the given order.

    TREC's tools sort by score and then by name, so that the score written is that of the rank where scores
    tie or are not finite.
    """
    for number, (part, score) in enumerate(zip(slices, scores, strict=True)):
        if len(score) != len(part.item_ids):
            raise DataError(
                f"{tag} has {len(score)} scores for the {len(part.item_ids)} candidates of slice {number}"
            )
        group = np.repeat(np.arange(len(part.groups)), part.groups)
        order = np.lexsort((-score, group))
        starts = np.cumsum(part.groups) - part.groups
        rank = np.arange(len(group)) - np.repeat(starts, part.groups) + 1
        ordered = score[order]
        again = rank[1:] > 1
        fits = not len(ordered) or (
            np.isfinite(ordered).all() and bool((np.diff(ordered)[again] < -1e-9).all())
        )
        written = ordered if fits else -rank.astype(np.float64)
        names = list(_queries(number, part))
        items = part.item_ids[order].tolist()
        for at, item, place, value in zip(
            order.tolist(), items, rank.tolist(), written.tolist(), strict=True
        ):
            yield f"{names[at]} Q0 {item} {place} {value:.9g} {tag}"


def _queries(number: int, part: Slice) -> Iterable[str]:
    """A name of each candidate's query: the same request may be in two slices."""
    for query, size in zip(part.query_ids.tolist(), part.groups.tolist(), strict=True):
        yield from [f"{number}-{query}"] * size


def _file_name(policy: str) -> str:
    return re.sub(r"[^\w.%-]+", "_", policy.replace(" %", "pct").replace("%", "pct")).strip("_")
