"""Logging of one line an event: time, level, logger, message.

Nothing is set up at import; the edge (a command, a service's main) calls `setup_logging` once. Progress and
errors of the command line are not logs.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

__all__ = ["LineFormatter", "setup_logging"]

QUIET = ("alembic", "httpcore", "httpx", "mlflow", "numba", "matplotlib", "sqlalchemy", "urllib3")
"""Libraries that talk a lot at INFO."""


class LineFormatter(logging.Formatter):
    """`2026-11-22T10:00:00.123Z INFO data.store: 12 rows`, a traceback folded into the same line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line; line breaks become ` ⏎ `."""
        return " ⏎ ".join(super().format(record).splitlines())


def setup_logging(*, level: str = "INFO", file: Path | None = None) -> None:
    """Send this process's logs to `file`, or to standard error; what was set up before is replaced."""
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h.formatter, LineFormatter)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
