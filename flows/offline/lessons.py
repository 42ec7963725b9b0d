"""Whether what was chosen teaches a component anything, and where it does not, whether something else would.

A catalogue without clicks is served by models that learnt nothing. Where clicks lie outside of the window and
the fraction, or a model that learnt would be replaced, that is one line instead. It trains nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from data.schema import CART, CLICK, ORDER
from flows.offline.inputs import Inputs
from infra.errors import DataError
from models.manifest import Artifact

__all__ = ["expected_lessons"]


def expected_lessons(
    name: str, inputs: Inputs, teaches: Callable[[Inputs], bool], *, old: Artifact | None = None
) -> None:
    """Raise DataError where a component that has nothing to learn from should have some.

    It should where all that is kept would teach it (`teaches`: whether inputs do), and where `old`, the
    champion's, has learnt from clicks.
    """
    whole = replace(inputs, since_us=0, fraction=1.0, half_life_d=None, cache={})
    there, kept = _reactions(inputs), _reactions(whole)
    chosen = f"{_chosen(inputs)} ({there:,} of the {kept:,} clicks, carts and orders that are kept)"
    what = name.replace("_", " ")
    if teaches(whole):
        raise DataError(
            f"nothing to learn {_article(what)} {what} from in {chosen}; widen the window, take a larger "
            "fraction, or wait for traffic"
        )
    if old is not None and old.metrics.get("pairs", 1.0) > 0:
        raise DataError(
            f"nothing to learn {_article(what)} {what} from in {chosen}, and the champion's has learnt from "
            "clicks; wait for traffic, and leave it as it is until then"
        )


def _reactions(inputs: Inputs) -> int:
    """Clicks, carts and orders of the window; the fraction is not looked at."""
    kind, known = inputs.events["kind"].to_numpy(), inputs.events["known_time"].to_numpy()
    return int((np.isin(kind, (CLICK, CART, ORDER)) & (known >= inputs.since_us)).sum())


def _chosen(inputs: Inputs) -> str:
    window = inputs.snapshot["window_d"]
    told = "all that is kept" if window is None else f"a window of {window:g} days"
    told += "" if inputs.fraction == 1.0 else f", fraction {inputs.fraction:g}"
    return told + ("" if inputs.half_life_d is None else f", half-life {inputs.half_life_d:g} days")


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
