"""Words that shoppers type for what the catalogue calls otherwise, learnt from what they clicked.

A typed word that the clicked items do not say, whose clicks fall on items that nearly all say another word,
means that word. The two seldom stand in one query (`running shoes` are no synonyms), and the other word is
far more frequent among these clicks than among all. It knows words and clicks, not how they are searched.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.text import STOP_WORDS
from infra.errors import DataError
from infra.files import write_atomic

__all__ = ["Synonyms"]

MIN_CLICKS, MIN_ITEMS = 10, 3  # of a typed word: with fewer nothing is learnt
MOST_SAID = 0.3  # of its clicked items say the word themselves: it needs no other
LEAST_SHARE = 0.4  # of its clicked items say the other word, by the lower end of a 95 % interval
LEAST_LIFT = 3.0  # times as many as of all clicked items
MOST_TOGETHER = 0.2  # of its queries hold both words
_FILE = "synonyms.json"


@dataclass(frozen=True)
class Synonyms:
    """`words`: typed stemmed word → the catalogue's stemmed word for it."""

    words: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def fit(cls, clicks: Iterable[tuple[Sequence[str], int, Sequence[str]]]) -> Synonyms:
        """Learn from clicks: (stemmed words typed, a number of the item, stemmed words of the item)."""
        n = 0
        everywhere: Counter[str] = Counter()  # clicks on items that say the word
        typed: Counter[str] = Counter()
        said: Counter[str] = Counter()  # clicks after the word on items that say it
        items: dict[str, set[int]] = defaultdict(set)
        beside: dict[str, Counter[str]] = defaultdict(Counter)  # words of items clicked after the word
        together: Counter[tuple[str, str]] = Counter()
        for asked, item, words in clicks:
            n += 1
            query, text = set(asked) - STOP_WORDS, set(words)
            everywhere.update(text)
            for word in query:
                typed[word] += 1
                said[word] += word in text
                items[word].add(item)
                beside[word].update(text)
                together.update((word, other) for other in query if other != word)
        found: dict[str, str] = {}
        for word, clicked in sorted(typed.items()):
            if clicked < MIN_CLICKS or len(items[word]) < MIN_ITEMS or said[word] > MOST_SAID * clicked:
                continue
            best, most = "", 0.0
            for other, count in sorted(beside[word].items()):
                lift = count / clicked / (everywhere[other] / n)
                if (
                    other == word
                    or not other.isalpha()
                    or lift < LEAST_LIFT
                    or _least_share(count, clicked) < LEAST_SHARE
                    or together[word, other] > MOST_TOGETHER * clicked
                ):
                    continue
                worth = count / clicked * math.log(lift)
                if worth > most:
                    best, most = other, worth
            if best:
                found[word] = best
        return cls(found)

    def __len__(self) -> int:
        return len(self.words)

    def instead(self, words: Sequence[str]) -> tuple[str, ...]:
        """The words with the catalogue's in place of those that have one; empty where none has."""
        if not any(word in self.words for word in words):
            return ()
        return tuple(self.words.get(word, word) for word in words)

    def save(self, folder: Path) -> None:
        """Write `synonyms.json`."""
        write_atomic(folder / _FILE, json.dumps(dict(self.words), ensure_ascii=False).encode())

    @classmethod
    def load(cls, folder: Path) -> Synonyms:
        """Read saved synonyms; none where there is no file."""
        path = folder / _FILE
        try:
            words = json.loads(path.read_bytes())
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is damaged ({error}); fit the speller again") from error
        if not isinstance(words, dict) or not all(isinstance(w, str) for w in words.values()):
            raise DataError(f"{path} does not map words to words; fit the speller again")
        return cls(words)


def _least_share(count: int, of: int) -> float:
    """The lower end of Wilson's 95 % interval of count / of."""
    z = 1.96
    share = count / of
    middle = share + z * z / (2 * of)
    spread = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return (middle - spread) / (1 + z * z / of)
