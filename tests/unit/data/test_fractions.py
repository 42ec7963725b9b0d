"""Fractions are nested, stable, of the right size, and a group is in or out as a whole."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import pytest

from data.fractions import BUCKETS, bucket_of, in_fraction
from infra.errors import ConfigError

KEYS = np.random.default_rng(5).integers(-(2**62), 2**62, 20_000)


def test_fractions_are_nested_and_of_their_size() -> None:
    inside = [in_fraction(KEYS, f, salt="q") for f in (0.0001, 0.2, 0.6, 0.8, 1.0)]
    for smaller, larger in pairwise(inside):
        assert not (smaller & ~larger).any()
    assert inside[4].all()
    assert abs(inside[2].mean() - 0.6) < 0.02
    assert abs(inside[3].mean() - 0.8) < 0.02


def test_a_key_is_in_or_out_wherever_it_stands() -> None:
    keys = np.tile(KEYS[:50], 7)
    np.random.default_rng(1).shuffle(keys)
    inside = in_fraction(keys, 0.5, salt="q")
    assert all(len(set(inside[keys == key])) == 1 for key in KEYS[:50])


def test_buckets_are_md5_and_differ_by_salt() -> None:
    key = int(KEYS[0])
    digest = hashlib.md5(f"{key}:salt".encode(), usedforsecurity=False).digest()
    lower = int.from_bytes(digest[8:], "little")
    assert bucket_of(np.array([key]), salt="salt")[0] == lower % BUCKETS
    assert (bucket_of(KEYS, salt="a") != bucket_of(KEYS, salt="b")).mean() > 0.99


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, float("nan")])
def test_impossible_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match="fraction"):
        in_fraction(KEYS, fraction, salt="q")


def test_no_keys() -> None:
    assert in_fraction(np.zeros(0, np.int64), 0.5, salt="q").shape == (0,)
