"""How MDS encodes one value of a column.

Spec: `specs/containers.md`, "mds". Pickles are refused, whatever they hold; so are arrays of floats and decimals.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

from pot.canonical import parse
from pot.data.readers.record import record_cap
from pot.errors import Malformed, UsageError

__all__ = ["decode", "fixed_size"]

SCALARS: Final = {
    "int": "<i8", "uint8": "<u1", "uint16": "<u2", "uint32": "<u4", "uint64": "<u8", "int8": "<i1", "int16": "<i2",
    "int32": "<i4", "int64": "<i8", "float16": "<f2", "float32": "<f4", "float64": "<f8",
}  # fmt: skip
ARRAYS: Final = {8: "<u1", 9: "<i1", 16: "<u2", 17: "<i2", 32: "<u4", 33: "<i4", 64: "<u8", 65: "<i8"}
VARIABLE: Final = ("str", "bytes", "json", "str_int", "str_float", "png", "jpeg", "pil")
MODES: Final = {b"L": 1, b"RGB": 3, b"RGBA": 4}


def fixed_size(encoding: str, where: str) -> int | None:
    """Bytes of each value, None where they differ. Raises `UsageError` for encodings that are not read."""
    name, _, rest = encoding.partition(":")
    if name in SCALARS and not rest:
        return int(SCALARS[name][2])
    if name == "ndarray":
        dtype, shape = _array_form(rest, where)
        return None if dtype is None or shape is None else int(dtype[2]) * math.prod(shape)
    if (name in VARIABLE and not rest) or name == "jpeg":
        return None
    what = "a pickle runs code when it is read" if name in ("pkl", "pickle") else "it is not one that is read"
    raise UsageError(f"{where}: encoding {encoding[:32]!r} is refused: {what}; write it again as json, str or ndarray")


def decode(encoding: str, data: bytes, where: str) -> Any:
    """One value. Raises `Malformed`, `UsageError`."""
    name, _, rest = encoding.partition(":")
    if name == "ndarray":
        return _array(data, rest, where)
    if name == "pil":
        return _image(data, where)
    if name in SCALARS:
        return _scalar(name, data, where)
    if name in ("bytes", "png", "jpeg"):
        return data
    if name == "json":
        return parse(data, what=where, limit=record_cap())
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"{where}: not UTF-8 at byte {error.start}") from None
    return text if name == "str" else _written(name, text, where)


def _written(name: str, text: str, where: str) -> int | float:
    pattern = r"-?(0|[1-9][0-9]{0,17})" if name == "str_int" else r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?"
    if len(text) > 64 or not re.fullmatch(pattern, text):
        raise Malformed(f"{where}: {text[:32]!r} is no number")
    return int(text) if name == "str_int" else float(text)


def _scalar(name: str, data: bytes, where: str) -> int | float:
    import numpy as np

    if len(data) != int(SCALARS[name][2]):
        raise Malformed(f"{where}: {len(data)} bytes for a number of encoding {name}")
    value: int | float = np.frombuffer(data, SCALARS[name])[0].item()
    return value


def _array_form(rest: str, where: str) -> tuple[str | None, list[int] | None]:
    """dtype and shape, as far as the encoding's name fixes them ("ndarray:int32:3,4")."""
    dtype, _, shape = rest.partition(":")
    if dtype and (dtype not in SCALARS or dtype.startswith("float") or dtype == "int"):
        raise UsageError(f"{where}: arrays of {dtype[:32]!r} are not read; only integers are")
    if shape and (len(shape) > 128 or not re.fullmatch(r"[1-9][0-9]{0,9}(,[1-9][0-9]{0,9})*", shape)):
        raise Malformed(f"{where}: {shape[:32]!r} is no shape")
    return SCALARS[dtype] if dtype else None, [int(extent) for extent in shape.split(",")] if shape else None


def _array(data: bytes, rest: str, where: str) -> Any:
    import numpy as np

    dtype, shape = _array_form(rest, where)
    at = 0
    if dtype is None:
        code = data[0] if data else 0
        if code not in ARRAYS:
            raise Malformed(f"{where}: array of element code {code}; only integers are read")
        dtype, at = ARRAYS[code], 1
    if shape is None:
        head = data[at] if len(data) > at else 0
        width, extents = 1 << (head & 3), head >> 2
        raw = data[at + 1 : at + 1 + extents * width]
        shape = [int.from_bytes(raw[start : start + width], "little") for start in range(0, len(raw), width)]
        at += 1 + extents * width
    if not shape or at > len(data) or math.prod(shape) * int(dtype[2]) != len(data) - at:
        raise Malformed(f"{where}: an array of shape {str(shape)[:64]} does not fit its {len(data)} bytes")
    return np.frombuffer(data, dtype, offset=at).reshape(shape).astype(np.dtype(dtype).newbyteorder("="))


def _image(data: bytes, where: str) -> Any:
    """u32 width, height, length of the mode; the mode; the pixels."""
    import numpy as np

    width, height, length = (int.from_bytes(data[start : start + 4], "little") for start in (0, 4, 8))
    channels = MODES.get(data[12 : 12 + length]) if length <= 4 else None
    if channels is None or not width or not height or width * height * channels != len(data) - 12 - length:
        raise Malformed(f"{where}: no image of mode L, RGB or RGBA that fills its {len(data)} bytes")
    pixels = np.frombuffer(data, np.uint8, offset=12 + length)
    return pixels.reshape((height, width) if channels == 1 else (height, width, channels)).copy()
