"""The words in which a shopper asks for an intent: synonyms, vague words, typing errors.

It knows the vocabulary and no item.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from data.world.words import CATEGORIES, COLOURS, DEPARTMENTS, MATERIALS, STYLES, Vocabulary

__all__ = ["clean_words", "misspell", "query_text"]

SYNONYM = 0.25  # of the nouns are said in another word
NEW_SYNONYM = 0.35  # and so many in a new word, where the category has one
TYPO = 0.06  # of the queries have one typing error
_LETTERS = "etaoinsrhldcumfpgwybvkxjqz"


def query_text(
    vocabulary: Vocabulary, intent: Sequence[int], luck: Sequence[float], vague: bool, synonyms: int
) -> str:
    """The query for an intent (department, category, brand, colour, material, style; -1 unsaid).

    `luck`: six uniforms; `synonyms`: how many of the new synonyms are in use.
    """
    department, category, brand, colour, material, style = intent
    words = []
    if brand >= 0:
        words.append(vocabulary.brands[brand])
    if colour >= 0:
        words.append(COLOURS[colour])
    if material >= 0:
        words.append(MATERIALS[material])
    if style >= 0:
        words.append(vocabulary.style(style))
    words.append(DEPARTMENTS[department][1] if vague else _noun(vocabulary, category, luck, synonyms))
    text = " ".join(words)
    return misspell(text, luck[3], luck[4], luck[5]) if luck[2] < TYPO else text


def clean_words(vocabulary: Vocabulary) -> frozenset[str]:
    """Every word that a query without a typing error may hold, at any time."""
    said = [*vocabulary.brands, *vocabulary.new_words, *COLOURS, *MATERIALS, *STYLES]
    said += [department[1] for department in DEPARTMENTS]
    said += [word for category in CATEGORIES for word in (category.noun, *category.synonyms)]
    return frozenset(word for phrase in said for word in phrase.split())


def _noun(vocabulary: Vocabulary, category: int, luck: Sequence[float], synonyms: int) -> str:
    new = _new_synonyms(vocabulary, synonyms).get(category)
    if new and luck[0] < NEW_SYNONYM:
        return new[-1 - int(luck[1] * min(2, len(new)))]
    if luck[0] > 1 - SYNONYM:
        known = CATEGORIES[category].synonyms
        return known[int(luck[1] * len(known))]
    return CATEGORIES[category].noun


@lru_cache(maxsize=8)
def _new_synonyms(vocabulary: Vocabulary, synonyms: int) -> dict[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = {}
    for k in range(synonyms):
        category, word = vocabulary.new_synonym(k)
        found[category] = (*found.get(category, ()), word)
    return found


def misspell(text: str, where: float, how: float, what: float) -> str:
    """One typing error, by three uniforms: a letter left out, doubled, replaced, or two swapped."""
    at = min(int(where * len(text)), len(text) - 1)
    if len(text) < 4:
        return text
    if how < 0.3:
        return text[:at] + text[at + 1 :]
    if how < 0.5:
        return text[:at] + text[at] + text[at:]
    if how < 0.75:
        return text[:at] + _LETTERS[int(what * len(_LETTERS))] + text[at + 1 :]
    at = min(at, len(text) - 2)
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
