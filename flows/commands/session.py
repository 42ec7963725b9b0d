"""What every verb shares: the options --home, --seed and --json, the settings, progress, and the result.

Progress goes to standard error, the result to standard output. It knows no verb.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from infra.settings import Settings, load_settings

__all__ = ["HomeOption", "JsonOption", "SeedOption", "Session", "open_session", "table", "verb"]

HomeOption = Annotated[
    Path | None, typer.Option("--home", help="Folder of the runtime state (default: var/).")
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of everything random (default: 7).")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Make the last line of standard output one JSON document.")
]


@dataclass(frozen=True)
class Session:
    """One command: its settings and where its result goes."""

    settings: Settings
    as_json: bool

    def emit(self, document: Any, text: str = "") -> None:
        """Print the result: `text`, or with --json the document as the last line; a dataclass is one too."""
        if text:
            sys.stdout.write(text.rstrip("\n") + "\n")
        if self.as_json:
            sys.stdout.write(json.dumps(document, default=_plain, separators=(",", ":")) + "\n")
        elif not text:
            sys.stdout.write(_lines(_plain(document) if is_dataclass(document) else document))

    @contextlib.contextmanager
    def progress(self, what: str) -> Iterator[Callable[..., None]]:
        """Show on standard error that `what` goes on; yields `say(message, *details)`.

        On a terminal one live line with the seconds; elsewhere a line a message, no oftener than each second.
        """
        begin = time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console

            with Console(stderr=True).status(what) as spinner:
                yield lambda *m: spinner.update(f"{what}: {_say(m)} ({time.monotonic() - begin:.0f} s)")
            return
        last = [-1.0]

        def say(*message: object) -> None:
            now = time.monotonic() - begin
            if now - last[0] >= 1.0:
                last[0] = now
                sys.stderr.write(f"{what}: {_say(message)} ({now:.0f} s)\n")

        yield say


def open_session(ctx: typer.Context, **options: Any) -> Session:
    """The session of a verb: its own options before those that stood before the verb, before the environment.

    `options` are fields of Settings and `as_json`; None means not given.
    """
    general = ctx.find_root().obj or {}
    as_json = bool(options.pop("as_json", False) or general.get("as_json"))
    for name in ("home", "seed"):
        if options.get(name) is None and general.get(name) is not None:
            options[name] = Path(general[name]) if name == "home" else general[name]
    return Session(load_settings(**options), as_json)


def verb(help: str) -> typer.Typer:
    """The `app` of a verb or of a group of verbs."""
    return typer.Typer(
        help=help,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        no_args_is_help=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns in plain text, aligned; the last one is not padded."""
    cells = [[str(c) for c in columns], *([("-" if c is None else str(c)) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def _say(message: Sequence[object]) -> str:
    return " ".join(f"{m:,.3g}" if isinstance(m, float) else str(m) for m in message)


def _lines(document: Any) -> str:
    if not isinstance(document, Mapping):
        return f"{document}\n"
    return "".join(
        f"{k}: {json.dumps(v, default=_plain) if isinstance(v, (Mapping, list, tuple)) else v}\n"
        for k, v in document.items()
    )


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "tolist"):  # arrays and scalars of numpy
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value)
