"""The error tree and its exit codes."""

from __future__ import annotations

import re

import pytest

from infra import errors

CODES = {
    "ShelflifeError": 1,
    "InputError": 2,
    "ConfigError": 2,
    "DataError": 2,
    "EnvironmentError_": 2,
    "PromiseBroken": 3,
}


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_each_error_has_its_exit_code(name: str, code: int) -> None:
    error = getattr(errors, name)
    assert issubclass(error, errors.ShelflifeError)
    assert error.exit_code == code


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    drawn = set(re.findall(r"^ +[│├└─ ]*([A-Z]\w+) ", errors.__doc__ or "", flags=re.M))
    assert drawn == set(errors.__all__) == set(CODES)
