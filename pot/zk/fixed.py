"""Fixed-point grid: the declared operations `quantise/1` and `dequantise/1` between float32 and int64 weights.

Implements `specs/step-proof.md`, section "Conversions". Verification recomputes both bit by bit.

Why 28 fraction bits: the step then needs no rounding in its update (see `CircuitSpec.hidden_update_shift`), every
float32 of magnitude 2^-5 or more lies on the grid, and the largest change, 2^-29, is below half an ulp of any float32
above 2^-5.

Shows: the integer weights are the nearest grid points of the float weights, and back.
Does not show: that training on the grid follows float training (the drift is measured, not proven).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pot.errors import Malformed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["WEIGHT_BITS", "WEIGHT_LIMIT", "dequantise", "quantise"]

WEIGHT_BITS: Final = 28
"""Fraction bits of `quantise/1` and `dequantise/1`."""

WEIGHT_LIMIT: Final = 1 << (WEIGHT_BITS + 7)
"""Every integer weight has magnitude below this (128.0); start states stay below half of it (64.0)."""


def quantise(values: NDArray[np.float32], *, what: str = "weights") -> NDArray[np.int64]:
    """`quantise/1`: the integers nearest to `values` * 2^28, halves to even.

    `values`: float32, any shape. Returns int64 of the same shape. Raises `Malformed` for another dtype, NaN,
    infinities, and magnitudes of 64 or more.
    """
    import numpy as np

    if not isinstance(values, np.ndarray) or values.dtype != np.float32:
        raise Malformed(f"{what}: quantise/1 takes float32 arrays, this is {_dtype(values)}")
    if not np.isfinite(values).all():
        raise Malformed(f"{what}: holds NaN or infinity, which have no place on the integer grid")
    # exact: a float32 has 24 significant bits, a float64 holds 53, and scaling by 2^28 only moves the exponent
    scaled = np.rint(values.astype(np.float64) * float(1 << WEIGHT_BITS))
    if (np.abs(scaled) >= WEIGHT_LIMIT // 2).any():
        raise Malformed(f"{what}: a weight has magnitude 64 or more; the integer grid starts below that")
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
    return (values.astype(np.float64) / float(1 << WEIGHT_BITS)).astype(np.float32)


def _dtype(values: Any) -> str:
    return str(getattr(values, "dtype", type(values).__name__))
