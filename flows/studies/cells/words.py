"""A panel's words as learners read them: texts by number, what items said when, clicks after typing.

Decoded once a process. It knows what was known by a time; it trains and scores nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data.fractions import BUCKETS, bucket_of
from flows.studies.cells.learner import Fit, Fitted
from flows.studies.panels.panel import Panel, Slice
from flows.studies.panels.texts import texts_of

__all__ = ["Asked", "Clicked", "Scorer", "Words", "uncategorised", "wordless"]


@dataclass(frozen=True)
class Asked:
    """Queries with candidates: `groups` int32 [g] sizes; `text` int32 [g]; `item` int32 [n] (rows of items).

    `recent` int32 [g, REMEMBERED]: items that the shopper clicked lately, -1 none; `at_us`: items are
    taken by what they said then.
    """

    groups: NDArray[np.int32]
    text: NDArray[np.int32]
    item: NDArray[np.int32]
    recent: NDArray[np.int32]
    at_us: int

    @classmethod
    def of_slice(cls, part: Slice, *, at_us: int, frozen: bool) -> Asked:
        """A slice's; `frozen`: with what the state of the horizon's start knows of the shoppers."""
        recent = part.extra["frozen_recent" if frozen else "recent"]
        return cls(part.groups, part.extra["text"], part.extra["item"], recent, at_us)

    @classmethod
    def of_rows(cls, panel: Panel, groups: NDArray[np.bool_], *, at_us: int) -> Asked:
        """The training rows' for which `groups` bool [g] holds."""
        sizes, extra = panel.rows.groups, panel.extra
        item = extra["row_item"][np.repeat(groups, sizes)]
        return cls(sizes[groups], extra["row_text"][groups], item, extra["row_recent"][groups], at_us)


@dataclass(frozen=True)
class Clicked:
    """What was typed and then clicked, by time: `text` and `item` int32 [k], `weight` float32 [k]."""

    text: NDArray[np.int32]
    item: NDArray[np.int32]
    weight: NDArray[np.float32]


class Words:
    """One panel's words. Raises KeyError for a panel without (see `wordless`)."""

    def __init__(self, panel: Panel) -> None:
        self.key = panel.key
        self.texts = texts_of(panel)
        extra = panel.extra
        self.since_us, self.until_us = extra["item_since_us"], extra["item_until_us"]
        self._word_us, self._word_item = extra["word_us"], extra["word_item"]
        self._first = np.searchsorted(self._word_item, np.arange(len(self.since_us)))
        self._says = {name: extra[f"word_{name}"] for name in ("text", "title", "category")}
        self._click_us = extra["click_us"]
        self._clicked = Clicked(extra["click_text"], extra["click_item"], extra["click_weight"])
        # Hashed once: done at each training it would cost more than small trainings do.
        self._session = bucket_of(np.asarray(extra["click_session"]), salt="session")
        self._item = bucket_of(np.asarray(extra["item_ids"]), salt="item")

    def said(self, what: str, at_us: int) -> NDArray[np.int32]:
        """The `text`, `title` or `category` of each item as of a time: int32 [m], numbers of texts.

        An item that came later says what it said first.
        """
        told = np.bincount(self._word_item[self._word_us <= at_us], minlength=len(self._first))
        found: NDArray[np.int32] = self._says[what][self._first + np.maximum(told - 1, 0)]
        return found

    def items(self, fit: Fit) -> NDArray[np.int64]:
        """The items of the fraction that the shop had when training began: int64 [k] rows."""
        there = (self.since_us < fit.trained_us) & (self.until_us >= fit.trained_us)
        return np.flatnonzero(there & (self._item < round(fit.fraction * BUCKETS)))

    def clicks(self, fit: Fit, *, newest: int) -> Clicked:
        """The newest clicks of the fraction's sessions in the window, known before training began."""
        keep = self._click_us < fit.trained_us
        if fit.window_us is not None:
            keep &= self._click_us >= fit.trained_us - fit.window_us
        at = np.flatnonzero(keep & (self._session < round(fit.fraction * BUCKETS)))[-newest:]
        return Clicked(self._clicked.text[at], self._clicked.item[at], self._clicked.weight[at])


class Scorer(Protocol):
    """A component that turns words into columns of the candidates' features."""

    @property
    def name(self) -> str:
        """The component."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """The features that it makes."""
        ...

    @property
    def key(self) -> str:
        """Hash of its configuration and version: equal keys, equal models."""
        ...

    def fit(self, words: Words, fit: Fit, *, parent: bytes | None = None) -> Fitted:
        """Train; `parent`: a warm start. Raises DataError where there is nothing to learn."""
        ...

    def rewrite(self, words: Words, model: bytes, asked: Asked, out: NDArray[np.float32]) -> None:
        """Put what the model says of the candidates into `out` float32 [n, columns].

        What no words decide (the category of a photo, the vector of a similar item) stays as it is.
        """
        ...


def wordless(panel: Panel) -> str:
    """Why nothing can learn words from a panel; empty where something can."""
    if "text_starts" not in panel.extra:
        return f"{panel.source} has no searches: it says what was taken, not what was typed"
    if not len(panel.extra["click_us"]):
        return f"nobody clicked after typing in {panel.source}"
    return ""


def uncategorised(panel: Panel) -> str:
    """Why no categories can be learned from a panel with words; empty where they can."""
    texts, says = texts_of(panel), panel.extra["word_category"]
    found = {texts[t] for t in np.unique(says).tolist()} - {""}
    return (
        "" if len(found) > 1 else f"the items of {panel.source} have {len(found)} categories, not two or more"
    )
