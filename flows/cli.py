"""`shelflife VERB`: finds the verb's file in `flows/commands`, runs it, turns errors into a line and a code.

Each verb is loaded only when it is asked for, and its file imports nothing heavy at module level, so that
`shelflife --help` is instant. Exit codes: 0 done, 1 a defect, 2 wrong input, 3 a broken promise, 130 Ctrl-C.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from infra.errors import ConfigError, ShelflifeError

__all__ = ["VERBS", "main"]

VERBS = (
    "demo",
    "data",
    "world",
    "ingest",
    "refresh",
    "promote",
    "rollback",
    "releases",
    "policy",
    "up",
    "down",
    "status",
    "load",
    "eval",
    "bench",
    "study",
)
"""In the order of the help. Each is `app` of `flows/commands/<verb>.py`."""


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.ENOTDIR)
_FULL = ("no space left", "disk is full", "disk quota exceeded")


class _Verbs(TyperGroup):
    """A group whose commands are imported on demand and whose complaints are one line."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in VERBS:
            return None
        app = importlib.import_module(f"flows.commands.{cmd_name}").app
        command = typer.main.get_command(app)
        command.name = cmd_name
        command.short_help = app.info.help  # whole: the default cuts sentences short
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f"did you mean {close[0]!r}" if close else f"expected one of {', '.join(VERBS)}"
            raise ConfigError(f"unknown verb {args[0]!r}; {hint}; see `shelflife --help`")
        return super().resolve_command(ctx, args)


def _general(
    ctx: typer.Context,
    home: Annotated[str | None, typer.Option(help="Folder of the runtime state (default: var/).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random (default: 7).")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Make the last line of standard output one JSON document.")
    ] = False,
) -> None:
    """A shop search service that retrains itself, and the instrument that tells how often it should."""
    ctx.obj = {"home": home, "seed": seed, "as_json": as_json}


def _build() -> Any:
    app = typer.Typer(
        cls=_Verbs,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_general)
    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: this process's) and return its exit code."""
    args = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)
    try:
        code = _build().main(args=args, prog_name="shelflife", standalone_mode=False)
        sys.stdout.flush()
        if code == 130:  # typer's own answer to Ctrl-C, which says nothing
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except typer.TyperException as e:
        return _fail(_usage(e), 2)
    except ShelflifeError as e:
        return _fail(str(e), e.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted; what was acknowledged is kept, and the next command cleans up", 130)
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`): nothing is wrong, and nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as e:
        refused = _refused_by_disk(e)
        return _defect(e) if refused is None else _fail(refused, 2)


def _refused_by_disk(error: BaseException) -> str | None:
    """The line for a full, read-only or forbidden disk; None for any other error.

    Libraries have errors of their own for it (safetensors, DuckDB, SQLite, tantivy): known by their words.
    """
    if isinstance(error, OSError) and error.errno in _DISK:
        where = f" at {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}; make room or access, or choose another --home, and repeat"
    if any(words in str(error).lower() for words in _FULL):
        first = str(error).strip().splitlines()[0]
        return f"no space left on the disk ({first}); make room, or choose another --home, and repeat"
    return None if error.__cause__ is None else _refused_by_disk(error.__cause__)


def _usage(error: Any) -> str:
    message = " ".join(error.format_message().split())
    ctx = getattr(error, "ctx", None)
    command = ctx.command_path if ctx is not None else "shelflife"
    return f"{message.rstrip('.')}; see `{command} --help`"


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"shelflife: {' '.join(message.split())}\n")
    return code


def _defect(error: BaseException) -> int:
    traceback.print_exc()
    return _fail(f"a defect in Shelflife: {type(error).__name__}: {error}; please report the lines above", 1)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    # As an exception, so that every `finally` on the way out stops what it started.
    sys.stderr.write(f"shelflife: ended by {signal.Signals(number).name}\n")
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
