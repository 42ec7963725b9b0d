"""Arrays in files, mapped.

NumPy's own loading evaluates a file's header as Python, and the parser leaves circles of functions: garbage
that only a collection frees, which stops all threads.
"""

from __future__ import annotations

import mmap
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["mapped", "mapped_bytes"]

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[biufcSU]\d+)', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\), \} *\n"
)


def mapped(path: Path) -> NDArray[Any]:
    """The array of a `.npy` file (version 1, one plain dtype), read-only and memory-mapped.

    Raises OSError, or ValueError for another or an incomplete file.
    """
    content = _content(path)
    start = len(_MAGIC) + 2
    if content[: len(_MAGIC)] != _MAGIC or len(content) < start:
        raise ValueError(f"{path} is no .npy file of version 1")
    offset = start + struct.unpack("<H", content[len(_MAGIC) : start])[0]
    header = _HEADER.fullmatch(content[start:offset])
    if header is None:
        raise ValueError(f"{path} has a header that numpy.save does not write for plain numbers")
    dtype, fortran, shape = header.groups()
    sizes = tuple(int(n) for n in shape.replace(b",", b" ").split())
    try:
        return np.ndarray(sizes, dtype.decode(), content, offset, order="F" if fortran == b"True" else "C")
    except TypeError as error:  # fewer bytes than the shape says
        raise ValueError(f"{path} is incomplete ({error})") from error


def mapped_bytes(path: Path) -> NDArray[np.uint8]:
    """A file's bytes, uint8 [n], read-only: they stay when it is removed. ValueError for an empty file."""
    return np.frombuffer(_content(path), np.uint8)


def _content(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
