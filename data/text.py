"""How text becomes tokens, once for everything: state, classifier, encoder, indexes, world.

Unicode is normalised (NFKC, case-folded, accents dropped); tokens are runs of letters and
digits; plurals are trimmed. It knows no vocabulary.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from data.schema import stable_hash

__all__ = ["MAX_QUERY_CHARS", "normalise", "token_hashes", "tokens"]

MAX_QUERY_CHARS = 256
_TOKEN = re.compile(r"[^\W_]+")


def normalise(text: str) -> str:
    """Case-folded text without accents, control characters or repeated spaces, cut to 256 characters."""
    text = text[:MAX_QUERY_CHARS]
    if text.isascii():
        text = text.lower()
    else:
        text = unicodedata.normalize("NFKD", text).casefold()
        text = "".join(c for c in text if not unicodedata.combining(c))
    return " ".join(_TOKEN.findall(text))


@lru_cache(maxsize=65_536)
def _stem(token: str) -> str:
    if len(token) > 4 and token.endswith("ies"):
        return token[:-3] + "y"
    if len(token) > 4 and token.endswith(("ses", "xes", "zes", "ches", "shes")):
        return token[:-2]
    if len(token) > 3 and token.endswith("s") and not token.endswith(("ss", "us", "is")):
        return token[:-1]
    return token


def tokens(text: str) -> list[str]:
    """The stemmed tokens of a text, in order, repeats kept."""
    return [_stem(t) for t in normalise(text).split()]


@lru_cache(maxsize=262_144)
def _token_hash(token: str) -> int:
    return stable_hash(token) & 0xFFFFFFFF


def token_hashes(text: str) -> NDArray[np.uint32]:
    """The 32-bit stable hash of each token: uint32 [n_tokens]."""
    return np.fromiter((_token_hash(t) for t in tokens(text)), np.uint32)
