"""What comes in: limits of a request, paging cursors, photos of any size.

Everything that a caller can get wrong is refused here, with an InputError that says what to
do. It knows no model and no catalogue.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from components.search.filters import check_filters
from data.schema import NONE_ID, SURFACES, stable_hash
from data.shop import Filters, Request
from infra.errors import InputError

__all__ = [
    "MAX_QUERY",
    "MAX_SIZE",
    "PHOTO_SIDE",
    "Cursor",
    "DeadlinePassed",
    "clean_query",
    "decode_cursor",
    "encode_cursor",
    "request_id_of",
    "to_photo",
    "validate",
]

MAX_QUERY = 1_000  # characters accepted; the first 256 count (data.text.MAX_QUERY_CHARS)
MAX_SIZE = 100
PHOTO_SIDE = 28
_ASKABLE = SURFACES[1:]
_ID_BITS = (1 << 62) - 1


class DeadlinePassed(InputError):
    """The request's own deadline is over: nobody waits for what is still to be computed."""


@dataclass(frozen=True)
class Cursor:
    """Where a page turn goes on: the list that `request_id` got from `release_id`, at `offset`.

    `filters`: what the list was narrowed to; a page turn need not say it again, and cannot change it.
    """

    release_id: str
    request_id: int
    offset: int
    filters: Filters | None = None


def encode_cursor(cursor: Cursor) -> str:
    """The cursor as URL-safe text."""
    text = f"{cursor.release_id}.{cursor.request_id}.{cursor.offset}"
    if cursor.filters is not None:
        text += "|" + json.dumps(astuple(cursor.filters))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


@lru_cache(maxsize=1_024)  # a page turn looks at it twice
def decode_cursor(text: str) -> Cursor:
    """The cursor in a text that `encode_cursor` made. Raises InputError for any other text."""
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        place, _, narrowed = base64.b64decode(padded, altchars=b"-_", validate=True).decode().partition("|")
        release_id, request_id, offset = place.rsplit(".", 2)
        filters = _filters_of(orjson.loads(narrowed)) if narrowed else None
        cursor = Cursor(release_id, int(request_id), int(offset), filters)
    except (ValueError, binascii.Error):
        cursor = Cursor("", NONE_ID, -1)
    if not 0 <= cursor.offset < 1 << 31 or not -(1 << 63) <= cursor.request_id < 1 << 63:
        raise InputError(
            f"the cursor {text[:40]!r} is not one that a reply gave; use the `cursor` of the last reply, "
            "or leave it out to start anew"
        )
    return cursor


def _filters_of(parts: Any) -> Filters:
    """The filters in a cursor; ValueError for what no cursor holds."""
    category, low, high, in_stock = parts if isinstance(parts, list) and len(parts) == 4 else (None,) * 4
    prices = all(price is None or type(price) in (int, float) for price in (low, high))
    if not (isinstance(category, str) and isinstance(in_stock, bool) and prices):
        raise ValueError("not filters")
    try:
        filters = Filters(category, low, high, in_stock)
        check_filters(filters)
    except InputError as error:
        raise ValueError(str(error)) from error
    return filters


def validate(request: Request, *, photos: int) -> None:
    """Refuse what cannot be answered. `photos`: how many catalogue photos there are.

    Raises InputError for an unknown surface, a query over 1,000 characters, a page below 1 or over
    100 items, a negative offset, filters that contradict themselves, a photo that does not exist, or a
    `similar` without an item.
    """
    if request.surface not in _ASKABLE:
        raise InputError(f"surface {request.surface!r}; expected one of {', '.join(_ASKABLE)}")
    if len(request.query) > MAX_QUERY:
        raise InputError(
            f"a query of {len(request.query)} characters; expected at most {MAX_QUERY}: shorten it"
        )
    if not 1 <= request.size <= MAX_SIZE:
        raise InputError(f"a page of {request.size} items; expected size from 1 to {MAX_SIZE}")
    if request.offset < 0:
        raise InputError(f"offset {request.offset}; expected 0 or more")
    if request.surface == "similar" and request.item_id == NONE_ID:
        raise InputError("similar items of no item; give item_id")
    if request.filters is not None:
        check_filters(request.filters)
    if request.photo < -1 or (request.photo >= photos > 0):
        raise InputError(f"photo {request.photo}; expected 0 to {photos - 1}, or -1 for none")


def clean_query(query: str) -> str:
    """The query as it can be stored: lone surrogates, which UTF-8 cannot hold, become `?`."""
    return query.encode("utf-8", "replace").decode()


def request_id_of(request: Request) -> int:
    """The request's own id, or where it has none one made of its content: the same every time."""
    if request.request_id != NONE_ID:
        return request.request_id
    text = (
        f"{request.surface} {request.time_us} {request.user_id} {request.session_id} {request.photo} "
        f"{request.item_id} {request.offset} {clean_query(request.query)}"
    )
    if request.filters is not None:
        text += f" {clean_query(repr(request.filters))}"
    return stable_hash(text) & _ID_BITS


def to_photo(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Any grey or colour image, [height, width] or [height, width, channels], as uint8 [28, 28].

    Colours are averaged with the luma weights of ITU-R BT.601, blocks of pixels by their mean;
    an image smaller than 28 is enlarged by repeating pixels. Raises InputError for another shape
    or dtype.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or 0 in image.shape:
        raise InputError(
            f"an image of {image.dtype} {list(image.shape)}; expected uint8 [height, width] or "
            "[height, width, channels]"
        )
    if image.ndim == 3:
        channels = image.shape[2]
        grey = image[..., :3] @ np.array([0.299, 0.587, 0.114]) if channels >= 3 else image[..., 0]
    else:
        grey = image
    if grey.shape == (PHOTO_SIDE, PHOTO_SIDE):
        return np.ascontiguousarray(grey.astype(np.uint8))
    for axis in (0, 1):
        side = grey.shape[axis]
        edges = np.arange(PHOTO_SIDE) * side // PHOTO_SIDE
        if side < PHOTO_SIDE:
            grey = grey.take(edges, axis=axis)
        else:
            widths = np.diff(np.append(edges, side))
            shape = (-1, 1) if axis == 0 else (1, -1)
            grey = np.add.reduceat(grey.astype(np.float64), edges, axis=axis) / widths.reshape(shape)
    made: NDArray[np.uint8] = np.rint(grey).astype(np.uint8)
    return made
