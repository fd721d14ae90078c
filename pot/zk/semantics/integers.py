"""Exact tensor arithmetic on int64: products through float64 where that is exact, quotients and roots without error.

Implements `specs/step-proof.md`, section "Program". A float64 sum of integer products is exact in any order while all
partial sums stay below 2^53, so BLAS may compute it; larger factors are split into limbs first.

Shows: nothing alone; `tests/simulator/integer_oracle.py` computes the same with Python integers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

__all__ = ["argmax", "divide", "fold", "largest", "matmul", "reciprocal_root", "root", "rounded", "window"]

FLOAT_BITS: Final = 53  # integers that a float64 holds without loss
WORD_BITS: Final = 62  # magnitudes that int64 takes here; one bit is left for a doubling
SMALL_PRODUCT: Final = 1 << 14  # multiplications below which the conversions cost more than BLAS saves


def largest(values: Ints) -> int:
    """The largest magnitude, 0 for an empty tensor; exact also for -2^63."""
    return max(int(values.max()), -int(values.min())) if values.size else 0


def matmul(left: Ints, right: Ints) -> Ints:
    """(..., M, K) @ (..., K, N). Exact while the true results lie in int64, whatever lies between."""
    import numpy as np

    if left.size * right.shape[-1] <= SMALL_PRODUCT:
        small: Ints = np.matmul(left, right)
        return small
    return _product(left, right)


def _product(left: Ints, right: Ints) -> Ints:
    """Sums wrap modulo 2^64 between the limbs, which cancels when the result fits."""
    import numpy as np

    one, two = largest(left), largest(right)
    if one * two * left.shape[-1] < 1 << FLOAT_BITS:
        exact: Ints = np.matmul(left.astype(np.float64), right.astype(np.float64)).astype(np.int64)
        return exact
    wide = max(one, two)
    room = FLOAT_BITS - 1 - min(one, two).bit_length() - left.shape[-1].bit_length()
    count = room if room >= wide.bit_length() // 4 else wide.bit_length() // 2
    if one >= two:
        high = left >> count
        return (_product(high, right) << count) + _product(left - (high << count), right)
    high = right >> count
    return (_product(left, high) << count) + _product(left, right - (high << count))


def rounded(values: Ints, count: int) -> Ints:
    """floor((v + 2^(count-1)) / 2^count) for |v| < 2^62."""
    return (values + (1 << (count - 1))) >> count


def divide(left: Ints, right: Ints, count: int, cap: int) -> Ints:
    """floor((2 left 2^count + right) / (2 right)), right >= 1; beyond +-cap only that it is beyond."""
    quotient, rest = _quotient(left, right, count, cap)
    return quotient + (2 * rest >= right)


def root(values: Ints) -> Ints:
    """floor(sqrt(v)) for 0 <= v < 2^62."""
    import numpy as np

    # never too small: as a float n^2 is off by 2^-53 of it at most, its root by half as much, which rounds to n < 2^31
    guess = np.sqrt(values.astype(np.float64)).astype(np.int64)
    return guess - (guess * guess > values)


def reciprocal_root(values: Ints, count: int, cap: int) -> Ints:
    """floor(2^count / sqrt(v)) for v >= 1; beyond cap only that it is beyond."""
    import numpy as np

    if (cap + 1) ** 2 < 1 << (WORD_BITS - 1):
        # q^2 v <= 2^(2 count) for the same q as q^2 <= floor(2^(2 count) / v)
        squares, _ = _quotient(np.ones_like(values), values, 2 * count, (cap + 1) ** 2)
        return root(squares)
    power = 1 << (2 * count)
    exact = (min(math.isqrt(power // value), cap + 1) for value in values.reshape(-1).tolist())
    return np.fromiter(exact, np.int64, values.size).reshape(values.shape)


def _quotient(left: Ints, right: Ints, count: int, cap: int) -> tuple[Ints, Ints]:
    """floor(left 2^count / right) and the remainder, by long division in words; beyond the cap it stays beyond."""
    import numpy as np

    quotient = left // right
    rest = left - quotient * right
    room = max(1, WORD_BITS - largest(right).bit_length())
    while True:
        quotient = np.clip(quotient, -cap - 2, cap + 1)  # beyond +-cap by one more, so that digits keep it there
        if count == 0:
            return quotient, rest
        step = min(room, count, max(1, WORD_BITS - (cap + 2).bit_length()))
        digit = (rest << step) // right
        rest = (rest << step) - digit * right
        quotient = (quotient << step) + digit
        count -= step


def window(values: Ints, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> Ints:
    """(B, C, H, W) to (B, OH, OW, C kh kw): the pixels under each kernel position, channel first, zeros around."""
    import numpy as np
    from numpy.lib.stride_tricks import sliding_window_view

    (sh, sw), (ph, pw) = stride, padding
    padded = np.pad(values, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    cut = sliding_window_view(padded, tuple(kernel), axis=(2, 3))[:, :, ::sh, ::sw]  # (B, C, OH, OW, kh, kw)
    moved = cut.transpose(0, 2, 3, 1, 4, 5)
    return moved.reshape(*moved.shape[:3], math.prod(moved.shape[3:]))


def fold(values: Ints, shape: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> Ints:
    """(B, OH, OW, C kh kw) to (B, C, H, W): every window's pixels added where `window` took them from."""
    import numpy as np

    (kh, kw), (sh, sw) = kernel, stride
    rows, columns = values.shape[1:3]
    cut = values.reshape(*values.shape[:3], shape[1], kh, kw).transpose(0, 3, 1, 2, 4, 5)
    image = np.zeros(tuple(shape), values.dtype)
    for row in range(kh):
        for column in range(kw):
            image[:, :, row : row + sh * rows : sh, column : column + sw * columns : sw] += cut[..., row, column]
    return image


def argmax(values: Ints) -> Ints:
    """1 at the first largest value along the last axis, else 0."""
    import numpy as np

    marks = np.zeros(values.shape, np.int64)
    np.put_along_axis(marks, values.argmax(axis=-1, keepdims=True), 1, axis=-1)
    return marks
