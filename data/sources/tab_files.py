"""Tab-separated tables as other people write them: quoted or not, short rows, columns in any order.

A table is read whole as text before anything is made of it. It knows no particular table.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.errors import DataError

__all__ = ["TabFile", "read_tab_file"]

_LONGEST = 1 << 24  # characters of one cell
_MISSING = frozenset({"nan", "none", "null", "n/a"})


@dataclass
class TabFile:
    """A table as text. `rows`: (line, column → trimmed text, "" where missing, for any column asked for);
    `malformed`: (line, text) of rows with more cells than the header; `used`: columns that mean something.
    """

    file: str
    columns: tuple[str, ...]
    rows: list[tuple[int, dict[str, str]]]
    malformed: list[tuple[int, str]]
    used: set[str] = field(default_factory=set)

    def use(self, *names: str) -> None:
        """Say that these columns mean something; those that the file lacks are empty in every row."""
        self.used.update(names)

    def column(self, name: str) -> list[str]:
        """A column's texts."""
        return [row[name] for _, row in self.rows]


class _Row(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return ""


def read_tab_file(
    folder: Path, name: str, *, required: Sequence[str], spelt: Mapping[str, str] | None = None
) -> TabFile | None:
    """`NAME.csv` or `NAME.csv.gz` of the folder; None where there is neither.

    Cells may be quoted or not: of both readings the one is taken in which more rows have as many cells
    as the header. `spelt`: other spellings of columns. Raises DataError where it cannot be read or lacks
    a required column.
    """
    path = next((p for e in (".csv", ".csv.gz") if (p := folder / f"{name}{e}").is_file()), None)
    if path is None:
        return None
    try:
        quoted, plain = (_read(path, quoting) for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE))
    except (OSError, UnicodeError, csv.Error, EOFError) as error:
        raise DataError(f"{path} cannot be read as tab-separated UTF-8 text: {error}") from error
    lines = quoted if _whole(quoted) >= _whole(plain) else plain
    if not lines:
        raise DataError(f"{path} is empty; expected a header with {', '.join(required)}")
    header = [" ".join(c.split()).lower() for c in lines[0][1]]
    header = [(spelt or {}).get(c, c) for c in header]
    missing = [c for c in required if c not in header]
    if missing:
        shown = ", ".join(header[:12])[:120]
        raise DataError(
            f"{path.name} has no column {missing[0]!r}; found {shown}; expected tab-separated columns"
        )
    rows: list[tuple[int, dict[str, str]]] = []
    malformed: list[tuple[int, str]] = []
    for line, cells in lines[1:]:
        if any(c.strip() for c in cells[len(header) :]):
            malformed.append((line, " ".join(cells)))
        elif any(c.strip() for c in cells):
            rows.append((line, _Row(zip(header, map(_cell, cells), strict=False))))
    return TabFile(path.name, tuple(header), rows, malformed, set(required))


def _read(path: Path, quoting: Any) -> list[tuple[int, list[str]]]:
    """(line on which it begins, cells) of each row, the header first."""
    opened = gzip.open if path.suffix == ".gz" else open
    before = csv.field_size_limit(_LONGEST)
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            return list(_numbered(csv.reader(file, delimiter="\t", quoting=quoting)))
    finally:
        csv.field_size_limit(before)


def _numbered(reader: Any) -> Iterator[tuple[int, list[str]]]:
    begun = 1
    for cells in reader:
        yield begun, cells
        begun = reader.line_num + 1


def _whole(lines: list[tuple[int, list[str]]]) -> int:
    """How many rows have as many cells as the header."""
    return sum(len(cells) == len(lines[0][1]) for _, cells in lines) if lines else 0


def _cell(text: str) -> str:
    text = text.strip()
    return "" if text.lower() in _MISSING else text
