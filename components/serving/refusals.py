"""How the service says no: a status and three sentences, never a traceback."""

from __future__ import annotations

from typing import Any

from components.search.request import DeadlinePassed
from infra.errors import DataError, InputError

__all__ = ["Refusal", "error_document", "status_of"]


class Refusal(InputError):
    """A request that cannot be served. `status` is the HTTP status it becomes."""

    def __init__(self, status: int, found: str, expected: str, do: str) -> None:
        super().__init__(f"{found}; expected {expected}; {do}")
        self.status = status
        self.found = found
        self.expected = expected
        self.do = do

    @property
    def document(self) -> dict[str, Any]:
        """The JSON body."""
        return {"error": {"found": self.found, "expected": self.expected, "do": self.do}}


def status_of(error: InputError) -> int:
    """The HTTP status of any InputError."""
    if isinstance(error, Refusal):
        return error.status
    if isinstance(error, DeadlinePassed):
        return 429
    return 422 if isinstance(error, DataError) else 400


def error_document(error: InputError) -> dict[str, Any]:
    """The JSON body of any InputError: its message told apart where it follows the house's form."""
    if isinstance(error, Refusal):
        return error.document
    found, _, rest = str(error).partition(";")
    expected, _, do = rest.partition(";") if ";" in rest else rest.partition(":")
    return {
        "error": {
            "found": found.strip(),
            "expected": expected.strip().removeprefix("expected").strip(),
            "do": do.strip() or "correct the request",
        }
    }
