"""Randomness that is the same in every process: named streams and hashed uniforms.

A stream is one of (seed, name, day), so that adding days or knobs never moves another's draws.
A hashed uniform is a function of what it is about: common random numbers for comparisons.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["hashed_uniform", "keyed", "mix", "stream", "zipf"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_TO_UNIT = 2.0**-53


def stream(seed: int, name: str, day: int = 0) -> np.random.Generator:
    """The generator of a named stream of a world."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), day])


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele et al. 2014): uint64 [...] to uint64 [...]."""
    x = x + _GOLDEN
    x = (x ^ (x >> _S30)) * _M1
    x = (x ^ (x >> _S27)) * _M2
    return x ^ (x >> _S31)


def keyed(seed: int, name: str, *keys: Any) -> NDArray[np.uint64]:
    """A 64-bit hash of integer keys (arrays that broadcast; at least one of one dimension)."""
    h = _origin(seed, name)
    for key in keys:
        h = mix(h ^ np.atleast_1d(np.asarray(key, dtype=np.int64)).view(np.uint64))
    return h


@lru_cache(maxsize=64)
def _origin(seed: int, name: str) -> NDArray[np.uint64]:
    return mix(np.array([(seed << 32) | zlib.crc32(name.encode())], dtype=np.uint64))


def hashed_uniform(h: NDArray[np.uint64], salt: int = 0) -> NDArray[np.float64]:
    """Uniforms in [0, 1) from hashes; another `salt` gives independent ones."""
    if salt:
        h = mix(h ^ np.uint64(salt))
    return (h >> _S11).astype(np.float64) * _TO_UNIT


def zipf(n: int, exponent: float) -> NDArray[np.float64]:
    """Probabilities of ranks 1..n: proportional to rank ** -exponent."""
    p = np.arange(1, n + 1, dtype=np.float64) ** -exponent
    return np.asarray(p / p.sum())
