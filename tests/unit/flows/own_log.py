"""Two small invented shops' logs as tables: with all there is, and with the least that is accepted."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

KINDS = {"lamp": "desk", "chair": "oak", "rug": "wool", "sofa": "corner"}
COLOURS = ("red", "blue", "grey", "white", "green")
START_S = 1_700_000_000


def item_keys() -> dict[str, str]:
    """Key → kind, 40 items; keys tell nothing of the kind."""
    kinds = list(KINDS) * 10
    return {f"sku-{7919 * (i + 1) % 10_007}": kind for i, kind in enumerate(kinds)}


def user_keys() -> list[str]:
    """60 users whose keys are texts."""
    return [f"user {chr(97 + i % 26)}{i}" for i in range(60)]


def write_full(folder: Path, *, days: int = 3) -> Path:
    """Items, users, searches with what they showed, and clicks and orders."""
    rng = random.Random(3)
    kind_of = item_keys()
    rows = [
        (key, f"{COLOURS[i % 5]} {KINDS[kind]} {kind}", kind, COLOURS[i % 5], 10 + i)
        for i, (key, kind) in enumerate(kind_of.items())
    ]
    _table(folder / "items.csv", ("item_id", "title", "category", "colour", "price"), rows)
    _table(folder / "users.csv", ("user_id", "gender"), [(u, "fm"[i % 2]) for i, u in enumerate(user_keys())])
    searches: list[Sequence[object]] = []
    acts: list[Sequence[object]] = []
    for day in range(days):
        for user in user_keys():
            at = START_S + day * 86_400 + rng.randrange(80_000)
            kind = rng.choice(list(KINDS))
            right = [k for k, v in kind_of.items() if v == kind]
            shown = rng.sample(right, 5) + rng.sample(list(kind_of), 3)
            shown = list(dict.fromkeys(shown))
            rng.shuffle(shown)
            request, session = f"r{len(searches)}", f"s{day} {user}"
            searches.append((request, at, user, session, f"{KINDS[kind]} {kind}", " ".join(shown)))
            for place, key in enumerate(shown):
                if kind_of[key] == kind and rng.random() < 0.5:
                    acts.append((user, key, at + 5 + place, "click", session, request))
                    if rng.random() < 0.2:
                        acts.append((user, key, at + 60 + place, "purchase", session, request))
    columns = ("request_id", "timestamp", "user_id", "session_id", "query", "items")
    _table(folder / "searches.csv", columns, searches)
    columns = ("user_id", "item_id", "timestamp", "event", "session_id", "request_id")
    _table(folder / "interactions.csv", columns, acts)
    return folder


def write_minimal(folder: Path, *, days: int = 3) -> Path:
    """User, item, time and type alone; each user clicks what is of one kind."""
    rng = random.Random(4)
    kind_of = item_keys()
    acts = []
    for i, user in enumerate(user_keys()):
        mine = [k for k, kind in kind_of.items() if kind == list(KINDS)[i % len(KINDS)]]
        for day in range(days):
            at = START_S + day * 86_400 + rng.randrange(80_000)
            acts += [(user, rng.choice(mine), at + 30 * n, "view") for n in range(5)]
    _table(folder / "interactions.csv", ("user", "item", "time", "type"), acts)
    return folder


def _table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
