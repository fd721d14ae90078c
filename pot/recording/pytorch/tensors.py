"""PyTorch tensors and the values beside them, in the form that is hashed and written; and back.

Values that are no tensors become JSON that tells 1 from 1.0: reals as {"real": repr}, a list that may hold tensors as
{"list": [...]} with {"entry": NAME} in a tensor's place.

Shows / does not show: nothing; this is a form of writing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from pydantic import JsonValue

from pot.commitments.state import TensorEntry
from pot.errors import Malformed, UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["GROUPS_ENTRY", "entry", "tagged", "tensor", "untagged"]

GROUPS_ENTRY: Final = "pot.groups"
"""The optimizer tensor (U8) that holds groups and scalar state as canonical JSON, so that one file is the component."""


def entry(name: str, value: torch.Tensor) -> TensorEntry:
    """The tensor as it is hashed; on the CPU and contiguous it is not copied. Raises `UsageError` for its dtype."""
    import torch

    shape = tuple(value.shape)
    flat = value.detach().cpu().contiguous().view(-1)
    array: Any = flat.view(torch.uint8).numpy() if flat.numel() else b""
    return TensorEntry(name, _dtype_name(value.dtype), shape, memoryview(array))


def tensor(item: TensorEntry) -> torch.Tensor:
    """A tensor of its own memory. Raises `Malformed` for a dtype that training does not use."""
    import torch

    kind = next((dtype for dtype, name in _dtypes().items() if name == item.dtype), None)
    if kind is None:
        raise Malformed(f"tensor {item.name[:64]!r}: dtype {item.dtype} is not one that training uses")
    if not len(item.data):
        return torch.empty(item.shape, dtype=kind)
    return torch.frombuffer(bytearray(item.data), dtype=kind).reshape(item.shape)


@lru_cache(maxsize=1)
def _dtypes() -> dict[Any, str]:
    import torch

    return {
        torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
        torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    }  # fmt: skip


def _dtype_name(dtype: Any) -> str:
    name = _dtypes().get(dtype)
    if name is None:
        raise UsageError(f"record: tensors of dtype {dtype} cannot be committed to yet")
    return name


def tagged(value: Any, what: str) -> JsonValue:
    """The JSON value. Raises `UsageError` for what has no such form, naming it by `what`."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value if abs(value) <= 2**53 else {"integer": str(value)}
    if isinstance(value, float):
        return {"real": repr(value)}
    if isinstance(value, Mapping):
        return {str(key): tagged(item, f"{what}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [tagged(item, what) for item in value]
    if hasattr(value, "item") and getattr(value, "numel", lambda: 0)() == 1:  # lr may be a tensor
        return {"tensor": str(value.dtype), "value": tagged(value.item(), what)}
    raise UsageError(f"record: {what} is a {type(value).__name__}, which cannot be committed to")


def untagged(value: Any, what: str, tensors: Mapping[str, torch.Tensor] | None = None) -> Any:
    """A number, text, nothing, or a list of these and of `tensors`. Raises `Malformed`."""
    if not isinstance(value, dict):
        return value
    if set(value) == {"real"} and isinstance(value["real"], str):
        try:
            return float(value["real"])
        except ValueError:
            raise Malformed(f"{what}: not a number") from None
    if set(value) == {"entry"} and tensors is not None and value["entry"] in tensors:
        return tensors[value["entry"]]
    if set(value) == {"list"} and isinstance(value["list"], list):
        return [untagged(item, what, tensors) for item in value["list"]]
    raise Malformed(f"{what}: not a number, text or nothing")
