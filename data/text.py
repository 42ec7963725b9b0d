"""How text becomes tokens, once for everything: state, classifier, encoder, indexes, world.

Unicode is normalised (NFKC, case-folded, accents dropped); tokens are runs of letters and digits, and
pairs of neighbours in scripts that put no space between words, as in Lucene's CJK analyser. Measures and
model numbers have one spelling (`data/measures.py`); plurals are trimmed. It knows no catalogue's words.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from data.measures import one_spelling
from data.schema import stable_hash

__all__ = ["MAX_QUERY_CHARS", "STOP_WORDS", "normalise", "token_hashes", "tokens"]

MAX_QUERY_CHARS = 256
_TOKEN = re.compile(r"\d+(?:[./]\d+)+|[^\W_]+")
_POSSESSIVE = re.compile(r"(?<=[^\W_])['’]s(?![^\W_])")
_VOICED = "\u3099\u309a"  # marks that tell kana apart; all others are accents, or vowels of Indic scripts
# Thai, Lao, Burmese, Khmer; kana, Han and its extensions, Hangul.
_SPACELESS = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff"
    r"\uac00-\ud7af\U00020000-\U0003ffff]+"
)
_DIGIT = re.compile(r"\d")
_ROUNDS = 8  # two are enough for what people write: the second finds nothing to change

# Lucene's English list less "no" and "not", which tell items apart.
STOP_WORDS = frozenset(
    {"a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it",
     "of", "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this",
     "to", "was", "will", "with"}
)  # fmt: skip

# Plurals that no rule makes, and the two spellings of English shops.
_IRREGULAR = {
    "shelves": "shelf", "halves": "half", "wolves": "wolf", "leaves": "leaf", "loaves": "loaf",
    "knives": "knife", "scarves": "scarf", "elves": "elf", "feet": "foot", "teeth": "tooth",
    "mice": "mouse", "men": "man", "women": "woman", "children": "child", "buses": "bus", "lens": "lens",
    "lenses": "lens", "canvas": "canvas", "canvases": "canvas", "gases": "gas", "colour": "color",
    "colours": "color", "grey": "gray", "jewellery": "jewelry", "moulding": "molding",
    "mouldings": "molding", "fibre": "fiber", "centre": "center", "aluminium": "aluminum",
}  # fmt: skip


def normalise(text: str, *, most: int = MAX_QUERY_CHARS) -> str:
    """Case-folded text without accents, control characters or repeated spaces, cut to `most` characters.

    Measures and model numbers are spelled in one way. Normalising twice changes nothing more.
    """
    text = text[:most]
    if text.isascii():
        text = text.lower()
    else:
        text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
        text = "".join(c for c in text if c in _VOICED or unicodedata.category(c)[0] != "M")
        text = unicodedata.normalize("NFKC", text)  # Hangul and kana in one piece again
    if "'" in text or "’" in text:
        text = _POSSESSIVE.sub("", text)
    if not _DIGIT.search(text):
        return " ".join(_TOKEN.findall(text))
    for _ in range(_ROUNDS):
        before, text = text, " ".join(_TOKEN.findall(one_spelling(text)))
        if text == before:
            break
    return text


@lru_cache(maxsize=65_536)
def _stem(token: str) -> str:
    known = _IRREGULAR.get(token)
    if known is not None:
        return known
    if len(token) > 4 and token.endswith("ies"):
        return token[:-3] + "y"
    if len(token) > 4 and token.endswith("ie"):
        return token[:-2] + "y"
    if len(token) > 4 and token.endswith(("sses", "xes", "zzes", "ches", "shes")):
        return token[:-2]
    if len(token) > 3 and token.endswith("s") and not token.endswith(("ss", "us", "is")):
        return token[:-1]
    return token


def tokens(text: str, *, most: int = MAX_QUERY_CHARS) -> list[str]:
    """The stemmed tokens of a text's first `most` characters, in order, repeats kept."""
    cut = normalise(text, most=most).split()
    if not text.isascii():
        cut = [part for token in cut for part in _pairs(token)]
    return [_stem(t) for t in cut]


def _pairs(token: str) -> list[str]:
    """The token, its spaceless stretches cut into overlapping pairs of characters."""
    if not _SPACELESS.search(token):
        return [token]
    parts: list[str] = []
    at = 0
    for run in _SPACELESS.finditer(token):
        start, stop = run.span()
        parts += [token[at:start]] if start > at else []
        parts += [token[i : min(i + 2, stop)] for i in range(start, max(start + 1, stop - 1))]
        at = stop
    return parts + ([token[at:]] if at < len(token) else [])


@lru_cache(maxsize=262_144)
def _token_hash(token: str) -> int:
    return stable_hash(token) & 0xFFFFFFFF


def token_hashes(text: str) -> NDArray[np.uint32]:
    """The 32-bit stable hash of each token: uint32 [n_tokens]."""
    return np.fromiter((_token_hash(t) for t in tokens(text)), np.uint32)
