"""Arrays in NumPy's .npy form, integers only.

Spec: `specs/containers.md`, "npy"; the format is NumPy's (`numpy.lib.format`). Objects, which NumPy stores as pickles,
structures and floats are refused; nothing is allocated for a shape that the bytes do not fill.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

from pot.data.readers.source import parsing
from pot.errors import Malformed

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["npy_array"]

MAX_HEADER = 4096  # a header of plain integers takes 128 bytes


def npy_array(data: bytes, where: str) -> NDArray[Any]:
    """The integer array, in this machine's byte order and C order. Raises `Malformed`."""
    import numpy as np
    from numpy.lib import format as npy

    stream = io.BytesIO(data)
    with parsing(where, ".npy array"):
        version = npy.read_magic(stream)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if read is None:
            raise Malformed(f"{where}: .npy version {version[0]}.{version[1]}; 1.0 and 2.0 are read")
        shape, fortran, dtype = read(stream, max_header_size=MAX_HEADER)
    if dtype.kind not in "iu" or dtype.names or dtype.hasobject:
        raise Malformed(f"{where}: .npy array of {str(dtype)[:32]}; only integers are read")
    body = memoryview(data)[stream.tell() :]
    if any(extent < 0 for extent in shape) or math.prod(shape) * dtype.itemsize != len(body):
        raise Malformed(f"{where}: .npy shape {str(shape)[:64]} does not fit the {len(body)} bytes that follow")
    array = np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")
    return np.ascontiguousarray(array, dtype.newbyteorder("="))
