"""One spelling for sizes, units and model numbers, so that a shopper's way of writing finds the shop's.

`24"`, `24in` and `24-inch` become `24 inch`; `5' x 7'` and `5 x 7 ft` become `5x7`; `iphone12` becomes
`iphone 12`, as `wd-40` and `wd40` become `wd 40`. It works on folded text and knows no catalogue.
"""

from __future__ import annotations

import re

__all__ = ["one_spelling"]

_UNITS = {
    "inch": ("in", "inch", "inches", '"', "”", "''", "′′", "″"),
    "ft": ("ft", "feet", "foot", "'", "’", "′"),
    "lb": ("lb", "lbs", "pound", "pounds"),
    "oz": ("oz", "ounce", "ounces"),
    "qt": ("qt", "qts", "quart", "quarts"),
    "gal": ("gal", "gallon", "gallons"),
    "cm": ("cm", "centimeter", "centimeters", "centimetre", "centimetres"),
    "mm": ("mm", "millimeter", "millimeters", "millimetre", "millimetres"),
    "watt": ("w", "watt", "watts"),
    "volt": ("v", "volt", "volts"),
    "piece": ("pc", "pcs", "piece", "pieces"),
    "pack": ("pk", "pack", "packs"),
}
_UNIT_OF = {spelling: unit for unit, spellings in _UNITS.items() for spelling in spellings}
_WORDS = "|".join(sorted((re.escape(s) for s in _UNIT_OF if s.isalpha()), key=len, reverse=True))
_SIGNS = "|".join(sorted((re.escape(s) for s in _UNIT_OF if not s.isalpha()), key=len, reverse=True))
_NUMBER = r"\d+(?:\.\d+)?"

_THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3}),(\d{3})(?![\d,])")
# A sign is a unit only where no letter follows: "5's" is none.
_MEASURE = re.compile(
    rf"(?<![\w./])({_NUMBER}|\d+/\d+)(?:\s*({_SIGNS})(?![^\W\d_])|[\s-]?({_WORDS})(?![^\W_])\.?)"
)
_LENGTH = (
    rf"({_NUMBER})(?: (?:ft {_NUMBER} inch|ft|inch|cm|mm))?(?: ?(?:[hwdl]|high|wide|deep|long)(?![^\W_]))?"
)
_TIMES = re.compile(rf"(?<![\w.]){_LENGTH}(?:\s*[x×]\s*{_LENGTH})(?:\s*[x×]\s*{_LENGTH})?(?![^\W_])")
_LETTER_DIGIT = re.compile(r"(?<=[^\W\d_]{2})(?=\d)")
_DIGIT_LETTER = re.compile(r"(?<=\d)(?=[^\W\d_]{2})(?!(?:st|nd|rd|th)(?![^\W_]))")
_BETWEEN = re.compile(r"(?<=\d)[x×](?=\d)")
_SINGLE = re.compile(r"(?<![^\W_])([^\W\d_])-(?=\d)")


def one_spelling(text: str) -> str:
    """The text with measures, sizes and model numbers in their one spelling; the rest is left alone."""
    text = text.replace("\u2044", "/")  # what NFKD makes of ½
    text = _THOUSANDS.sub(r"\1\2", text)
    text = _BETWEEN.sub(" x ", text)
    text = _MEASURE.sub(lambda m: f"{m[1]} {_UNIT_OF[m[2] or m[3]]} ", text)
    text = " ".join(text.split())
    text = _TIMES.sub(_sizes, text)
    text = _SINGLE.sub(r"\1", text)
    text = _LETTER_DIGIT.sub(" ", text)
    return _DIGIT_LETTER.sub(" ", text)


def _sizes(found: re.Match[str]) -> str:
    """`5x7`; of three lengths both neighbouring pairs, so that two of them find the third."""
    a, b, c = found.groups()
    return f"{a}x{b}" if c is None else f"{a}x{b} {b}x{c}"
