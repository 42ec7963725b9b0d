"""Uploaded images as arrays: raw bytes or the first file of a multipart form. Decoding only."""

from __future__ import annotations

import io
from email import message_from_bytes, policy

import numpy as np
from numpy.typing import NDArray

from components.serving.refusals import Refusal

__all__ = ["MAX_IMAGE_BYTES", "decode_image", "image_of_body"]

MAX_IMAGE_BYTES = 4 << 20
_MAX_PIXELS = 16_000_000
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM", "TIFF")


def image_of_body(body: bytes, content_type: str) -> bytes:
    """The image's bytes in a request body: the first file of a multipart form, else the body itself."""
    if content_type.lower().startswith("multipart/form-data"):
        head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1", "replace")
        message = message_from_bytes(head + body, policy=policy.HTTP)
        parts = [p for p in message.iter_parts() if p.get_filename() or p.get_content_maintype() == "image"]
        if not parts:
            raise Refusal(400, "a form without a file", "one image file in the form", "attach it as `photo`")
        found = parts[0].get_payload(decode=True)
        body = found if isinstance(found, bytes) else b""
    if not body:
        raise Refusal(400, "an empty image", "the bytes of an image", "send a PNG or JPEG")
    return body


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """The image as uint8 [height, width], light on dark as catalogue photos are.

    Raises Refusal 422 for what is not an image of a known format, 413 for one of over 16 megapixels.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise Refusal(
                    413,
                    f"an image of {image.width} × {image.height} pixels",
                    f"at most {_MAX_PIXELS:,} pixels",
                    "scale it down",
                )
            grey = np.asarray(image.convert("L"), np.uint8)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Refusal(
            422,
            f"an image that cannot be decoded ({error})",
            f"one of {', '.join(_FORMATS)}",
            "send it again",
        ) from None
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    return 255 - grey if np.median(border) > 127 else grey
