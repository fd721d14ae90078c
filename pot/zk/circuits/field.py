"""The field in which circuits compute: BN254's scalar field.

Shows: nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

__all__ = ["ELEMENT_BYTES", "MODULUS", "Vector", "encode", "inverse"]

MODULUS: Final = 21888242871839275222246405745257275088548364400416034343698204186575808495617
"""Order of the BN254 scalar field (EIP-196)."""

ELEMENT_BYTES: Final = 32

Vector = list[int]
"""Field elements, 0 <= element < MODULUS."""


def encode(vector: Iterable[int]) -> bytes:
    """32 little-endian bytes per element."""
    return b"".join(element.to_bytes(ELEMENT_BYTES, "little") for element in vector)


def inverse(value: int) -> int:
    """1 / value. Raises `ValueError` for 0."""
    return pow(value, -1, MODULUS)
