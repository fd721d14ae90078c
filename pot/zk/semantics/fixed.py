"""Fixed-point grid: the declared operations `quantise/1` and `dequantise/1` between float32 and int64 weights.

Implements `specs/step-proof.md`, section "Conversions". Verification recomputes both bit by bit.

Why 28 fraction bits: a step's update then needs no rounding, every float32 of magnitude 2^-5 or more lies on the grid,
and the largest change, 2^-29, is below half an ulp of any float32 above 2^-5. On any grid, a float32 that was put on it
is a float32 again, exactly.

Shows: the integer weights are the nearest grid points of the float weights, and back.
Does not show: that training on the grid follows float training (the drift is measured, not proven).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pot.errors import Malformed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["WEIGHT_BITS", "WEIGHT_LIMIT", "dequantise", "dequantise_array", "quantise", "quantise_array"]

WEIGHT_BITS: Final = 28
"""Fraction bits of `quantise/1` and `dequantise/1`."""

WEIGHT_LIMIT: Final = 1 << (WEIGHT_BITS + 7)
"""Every integer weight has magnitude below this (128.0); start states stay below half of it (64.0)."""

ARRAY_LIMIT: Final = 1 << 62  # the reference computes in int64


def quantise(values: NDArray[np.float32], *, what: str = "weights") -> NDArray[np.int64]:
    """`quantise/1`: the integers nearest to `values` * 2^28, halves to even.

    `values`: float32, any shape. Returns int64 of the same shape. Raises `Malformed` for another dtype, NaN,
    infinities, and magnitudes of 64 or more.
    """
    scaled = quantise_array(values, WEIGHT_BITS, what=what)
    if ((scaled >= WEIGHT_LIMIT // 2) | (scaled <= -WEIGHT_LIMIT // 2)).any():
        raise Malformed(f"{what}: a weight has magnitude 64 or more; the integer grid starts below that")
    return scaled


def quantise_array(values: NDArray[np.float32], bits: int, *, what: str = "weights") -> NDArray[np.int64]:
    """The integers nearest to `values` * 2^bits, halves to even, on a grid of any number of fraction bits.

    `values`: float32, any shape. Raises `Malformed` for another dtype, NaN, infinities, and integers of 2^62 or more.
    """
    import numpy as np

    if not isinstance(values, np.ndarray) or values.dtype != np.float32:
        raise Malformed(f"{what}: quantise/1 takes float32 arrays, this is {_dtype(values)}")
    if not np.isfinite(values).all():
        raise Malformed(f"{what}: holds NaN or infinity, which have no place on the integer grid")
    # exact: a float32 has 24 significant bits, a float64 holds 53, and the scaling only moves the exponent
    scaled = np.rint(np.ldexp(values.astype(np.float64), bits))
    if (np.abs(scaled) >= ARRAY_LIMIT).any():
        raise Malformed(f"{what}: a value is too large for a grid of {bits} fraction bits in 64-bit integers")
    return scaled.astype(np.int64)


def dequantise(values: NDArray[np.int64], *, what: str = "weights") -> NDArray[np.float32]:
    """`dequantise/1`: the float32 nearest to `values` / 2^28, halves to even.

    `values`: int64, any shape, magnitude below 2^35. Raises `Malformed` for another dtype or a larger magnitude.
    """
    import numpy as np

    if not isinstance(values, np.ndarray) or values.dtype != np.int64:
        raise Malformed(f"{what}: dequantise/1 takes int64 arrays, this is {_dtype(values)}")
    if ((values >= WEIGHT_LIMIT) | (values <= -WEIGHT_LIMIT)).any():
        raise Malformed(f"{what}: an integer weight has magnitude 2^35 or more")
    # exact in float64 (35 bits), so the only rounding is the one to float32
    return dequantise_array(values, WEIGHT_BITS)


def dequantise_array(values: NDArray[np.int64], bits: int) -> NDArray[np.float32]:
    """The float32 nearest to `values` / 2^bits; exact for what `quantise_array` made of a float32."""
    import numpy as np

    return np.ldexp(values.astype(np.float64), -bits).astype(np.float32)


def _dtype(values: Any) -> str:
    return str(getattr(values, "dtype", type(values).__name__))
