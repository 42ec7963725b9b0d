"""The one error tree. The command line turns an error into one line and an exit code.

    ShelflifeError            exit 1: a defect in Shelflife, if nothing below fits
    ├── InputError            exit 2: what the user gave is wrong
    │   ├── ConfigError       an unknown or impossible setting
    │   ├── DataError         a file or a row that does not hold what it should
    │   └── EnvironmentError_ the machine lacks something (port, disk, program)
    └── PromiseBroken         exit 3: a gate not met, a failed request

A message says what was found, what was expected, and what to do.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "DataError",
    "EnvironmentError_",
    "InputError",
    "PromiseBroken",
    "ShelflifeError",
]


class ShelflifeError(Exception):
    """Base of every error that Shelflife raises on purpose."""

    exit_code = 1


class InputError(ShelflifeError):
    """The user's input is wrong; the message says what to do."""

    exit_code = 2


class ConfigError(InputError):
    """A setting is unknown or impossible."""


class DataError(InputError):
    """A file, row or event does not hold what it should."""


class EnvironmentError_(InputError):
    """The machine lacks something: a free port, disk space, a program."""


class PromiseBroken(ShelflifeError):
    """A promise to users was broken: a failed request, a gate not met."""

    exit_code = 3
