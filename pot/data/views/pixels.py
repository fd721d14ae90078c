"""`pixels/1`: an image's extents and its values, whether it was stored as lists, as an array, or as a lossless file.

Spec: `specs/views/pixels-1.md`. PNG, BMP and PPM files are decoded with Pillow (extra [data]); everything whose decoded
values depend on the decoder, or have not 8 bits, is refused: the same record must give the same bytes to everybody.

Shows / does not show: a view compares exact values. A changed pixel makes another record.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from pot.data.views.content import field_of
from pot.errors import LimitExceeded, Malformed, MissingExtra, PotError

if TYPE_CHECKING:
    from pot.data.readers.record import Record

__all__ = ["MAX_VALUES", "pixel_bytes"]

MAX_EXTENT: Final = 2**32 - 1
MAX_VALUES: Final = 1 << 28  # as many as the longest record has bytes; an encoded image can be a thousandth of it

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_MODES: Final = {"1": 1, "L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
_LOSSY: Final = {b"\xff\xd8\xff": "JPEG", b"RIFF": "WebP", b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF",
                 b"\0\0\0\x0cjP": "JPEG 2000", b"\xff\x0a": "JPEG XL"}  # fmt: skip


def pixel_bytes(record: Record) -> bytes:
    """Height, width, channels as three u32 little endian, then the values row-major, one byte each.

    Raises `Malformed`, `LimitExceeded`, `UsageError`; `MissingExtra` where an encoded image needs Pillow.
    """
    image = field_of(record, "image")
    if isinstance(image, bytes):
        return _from_array(_decoded(image, record.where), record.where)
    if isinstance(image, np.ndarray):
        return _from_array(image, record.where)
    return _from_lists(image, record.where)


def _header(height: int, width: int, channels: int, where: str) -> bytes:
    if min(height, width, channels) < 1 or max(height, width, channels) > MAX_EXTENT:
        raise Malformed(f"{where}: 'image' has no channel, row or column, or an extent over {MAX_EXTENT}")
    return b"".join(extent.to_bytes(4, "little") for extent in (height, width, channels))


def _from_array(image: NDArray[Any], where: str) -> bytes:
    if image.ndim not in (2, 3) or image.dtype.kind not in "iu":
        raise Malformed(
            f"{where}: 'image' is an array of {image.dtype} with {image.ndim} axes; view pixels/1 needs uint8 of shape "
            "(H, W) or (H, W, C)"
        )
    height, width, *more = image.shape
    header = _header(height, width, more[0] if more else 1, where)
    if image.dtype != np.uint8 and not (int(image.min()) >= 0 and int(image.max()) <= 255):
        raise Malformed(f"{where}: 'image' holds a value outside 0 to 255")
    return header + image.astype(np.uint8, copy=False).tobytes()


def _from_lists(rows: Any, where: str) -> bytes:
    if not isinstance(rows, list) or not rows or not isinstance(rows[0], list) or not rows[0]:
        raise Malformed(f"{where}: view pixels/1 needs a field 'image', a list of rows of values 0 to 255")
    deep = isinstance(rows[0][0], list)
    height, width = len(rows), len(rows[0])
    channels = len(rows[0][0]) if deep else 1
    body = bytearray()
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != width:
            raise Malformed(f"{where}: row {number} of 'image' is not a list of {width}, as row 0 is")
        for pixel in row if deep else [row]:
            _append(body, pixel, channels if deep else width, f"{where}: row {number} of 'image'")
    return _header(height, width, channels, where) + bytes(body)


def _append(body: bytearray, values: Any, length: int, where: str) -> None:
    # bytes() takes True for 1, which JSON keeps apart: hence the type test
    if not isinstance(values, list) or len(values) != length or not all(type(value) is int for value in values):
        raise Malformed(f"{where} does not hold {length} integers")
    try:
        body += bytes(values)
    except ValueError:
        raise Malformed(f"{where} holds a value outside 0 to 255") from None


def _decoded(data: bytes, where: str) -> NDArray[Any]:
    """The values of a PNG, BMP or PPM file, uint8 (H, W) or (H, W, C)."""
    kind = _kind(data, where)
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("data", f"{where}: decoding a {kind} image") from None
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            channels = _MODES.get(image.mode, 0)
            if not channels or getattr(image, "n_frames", 1) != 1:
                raise Malformed(
                    f"{where}: a {kind} image of mode {image.mode} or of several frames; view pixels/1 takes one "
                    "frame, gray or RGB, with or without alpha; convert it or use file/1"
                )
            if image.width * image.height * channels > MAX_VALUES:
                raise LimitExceeded(f"{where}: an image of more than the limit of {MAX_VALUES} values")
            return np.asarray(image.convert("L") if image.mode == "1" else image)
    except PotError:
        raise
    except Exception as error:  # Pillow raises a dozen kinds over other people's bytes, and no list of them is promised
        reason = "".join(character if character.isprintable() else "?" for character in str(error))[:200]
        raise Malformed(f"{where}: {kind} image cannot be decoded: {reason}") from None


def _kind(data: bytes, where: str) -> str:
    """Pillow's name of the format, once the depth is known to be one whose values everybody decodes alike."""
    for magic, name in _LOSSY.items():
        if data.startswith(magic):
            raise Malformed(
                f"{where}: a {name} image; decoders differ in its values or layers, so pixels/1 takes PNG, BMP and "
                "PPM; use file/1"
            )
    if data.startswith(_PNG):
        depth = data[24:25]  # IHDR comes first, always
        good = len(data) > 24 and depth in b"\x01\x02\x04\x08" and data[12:16] == b"IHDR"
        kind = "PNG"
    elif data.startswith(b"BM"):
        good = int.from_bytes(data[14:18], "little") >= 40 and data[28:30] in (b"\x08\0", b"\x18\0")
        kind = "BMP"
    elif re.match(rb"P[56]\s", data):
        # 8 bits exactly: other depths are scaled, and not by everybody alike
        good = re.match(rb"P[56](?:\s|#[^\r\n]{0,1000}\n){1,64}\d+(?:\s|#[^\r\n]{0,1000}\n){1,64}\d+"
                        rb"(?:\s|#[^\r\n]{0,1000}\n){1,64}255\s", data) is not None  # fmt: skip
        kind = "PPM"
    else:
        raise Malformed(f"{where}: 'image' is bytes of no PNG, BMP or PPM image; use file/1")
    if not good:
        raise Malformed(
            f"{where}: a {kind} image whose values have not 8 bits (BMP: 24 for a pixel); convert it or use file/1"
        )
    return kind
