"""State digests: what a training run's whole state is, as one digest per component and one over them all.

Spec: `specs/commitments.md`, "State". Tensors are hashed by name, dtype, shape and bytes, each length-prefixed, in
name order; everything else as canonical JSON. The model's component can be recomputed from a released safetensors
file without torch: `tensors_digest("model", entries_from_safetensors(data))`.

Shows: two states with one digest agree in every byte that the components cover, at the same step of the same chain.
Does not show: how the state came about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final

from blake3 import blake3

from pot.canonical import canonical_bytes, derive, parse
from pot.errors import LimitExceeded, Malformed

__all__ = [
    "COMPONENTS",
    "DTYPE_BITS",
    "FILELESS",
    "FIRST_STATE",
    "JSON_CONTEXT",
    "MAX_HEADER_BYTES",
    "MAX_RANK",
    "STATE_CONTEXT",
    "TENSORS_CONTEXT",
    "TensorEntry",
    "entries_from_safetensors",
    "json_digest",
    "state_digest",
    "tensors_digest",
]

TENSORS_CONTEXT: Final = "pot/tensors/v1"
JSON_CONTEXT: Final = "pot/json/v1"
STATE_CONTEXT: Final = "pot/state/v1"
COMPONENTS: Final = frozenset({"cursor", "frozen", "model", "optimizer", "rng", "scaler", "scheduler"})
FILELESS: Final = frozenset({"cursor", "frozen", "rng"})
"""Components without a file of their own: `state.json` holds generators and cursor; the program makes `frozen`."""

FIRST_STATE: Final = "0" * 64
"""What stands for the previous state's digest in the digest of step 0."""

MAX_HEADER_BYTES: Final = 16 << 20  # safetensors header: room for 100,000 tensors
MAX_RANK: Final = 64

DTYPE_BITS: Final = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "U16": 16,
    "I16": 16,
    "F16": 16,
    "BF16": 16,
    "U32": 32,
    "I32": 32,
    "F32": 32,
    "U64": 64,
    "I64": 64,
    "F64": 64,
    "C64": 64,
}
"""Bits per element of each element type, by its safetensors name."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor: `dtype` by its safetensors name, `data` its elements row-major, little endian, contiguous."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes | bytearray | memoryview


def tensors_digest(kind: str, entries: Iterable[TensorEntry], *, threads: int = 1) -> str:
    """Digest (hex) of named tensors; `kind` names the component. Entries must ascend strictly by name.

    `threads`: that may hash one large tensor at the same time; 0: every core. The digest is the same.

    Raises `Malformed` for an unknown dtype, names out of order or twice, or data that the shape does not explain.
    """
    hasher = blake3(derive_key_context=TENSORS_CONTEXT, max_threads=threads or blake3.AUTO)
    _update(hasher, kind.encode())
    previous: str | None = None
    for entry in entries:
        if previous is not None and not previous < entry.name:
            raise Malformed(f"{kind} tensors: {entry.name!r} after {previous!r}; names must ascend, none twice")
        previous = entry.name
        data = memoryview(entry.data).cast("B") if len(entry.data) else memoryview(b"")
        _check_size(entry.name, entry.dtype, entry.shape, data.nbytes)
        _update(hasher, entry.name.encode())
        _update(hasher, entry.dtype.encode())
        _update(hasher, b"".join(size.to_bytes(8, "little") for size in entry.shape))
        _update(hasher, data)
    return hasher.hexdigest()


def json_digest(kind: str, value: Any) -> str:
    """Digest (hex) of a JSON value in canonical form; `kind` names the component. Raises `Malformed`."""
    return derive(JSON_CONTEXT, kind.encode(), canonical_bytes(value)).hex()


def state_digest(components: Mapping[str, str], step: int, config_blake3: str, previous: str) -> str:
    """Digest (hex) over a whole state: each component's digest by name, the step, the config, the previous state.

    `previous` is the state digest of the checkpoint before, `FIRST_STATE` at step 0. Raises `Malformed`.
    """
    unknown = sorted(set(components) - COMPONENTS)
    if unknown:
        raise Malformed(f"state: unknown component {unknown[0]!r}; known are {', '.join(sorted(COMPONENTS))}")
    if "model" not in components:
        raise Malformed("state: the component 'model' is missing")
    if not 0 <= step < 2**63:
        raise Malformed(f"state: step {step} is out of range")
    parts = [step.to_bytes(8, "little"), _digest(config_blake3, "config_blake3"), _digest(previous, "previous")]
    for name in sorted(components):
        parts += [name.encode(), _digest(components[name], name)]
    return derive(STATE_CONTEXT, *parts).hex()


def entries_from_safetensors(data: bytes | bytearray | memoryview, *, what: str = "safetensors") -> list[TensorEntry]:
    """The tensors of a safetensors file, sorted by name, without copying and without torch.

    Stricter than the format: no unknown header field, no gap, no overlap, every byte covered. Raises `Malformed`.
    """
    view = memoryview(data).cast("B")
    if len(view) < 8:
        raise Malformed(f"{what}: {len(view)} bytes, too short for a safetensors file")
    length = int.from_bytes(view[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise LimitExceeded(f"{what}: header of {length} bytes, more than the limit of {MAX_HEADER_BYTES}")
    if length > len(view) - 8:
        raise Malformed(f"{what}: truncated: header of {length} bytes announced, {len(view) - 8} bytes there")
    header_bytes = bytes(view[8 : 8 + length])
    if not header_bytes.startswith(b"{"):
        raise Malformed(f"{what}: not a safetensors file: the header does not begin with '{{'")
    header = parse(header_bytes, what=f"{what} header", limit=MAX_HEADER_BYTES)
    body = view[8 + length :]
    _check_metadata(header.pop("__metadata__", {}), what)
    spans = []
    for name, info in header.items():
        dtype, shape, start, stop = _tensor_info(name, info, what)
        spans.append((start, stop, name, dtype, shape))
    expected = 0
    for start, stop, name, dtype, shape in sorted(spans):
        if start != expected or stop < start or stop > len(body):
            raise Malformed(f"{what}: tensor {name[:64]!r} does not lie where the one before it ends")
        _check_size(name, dtype, shape, stop - start)
        expected = stop
    if expected != len(body):
        raise Malformed(f"{what}: {len(body) - expected} bytes after the last tensor")
    return [TensorEntry(n, d, s, body[a:b]) for a, b, n, d, s in sorted(spans, key=lambda span: span[2])]


def _tensor_info(name: str, info: Any, what: str) -> tuple[str, tuple[int, ...], int, int]:
    if not isinstance(info, dict) or set(info) != {"dtype", "shape", "data_offsets"}:
        raise Malformed(f"{what}: header entry {name[:64]!r} does not hold exactly dtype, shape and data_offsets")
    dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
    if not isinstance(dtype, str) or not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise Malformed(f"{what}: header entry {name[:64]!r} has a field of the wrong type")
    return dtype, tuple(shape), offsets[0], offsets[1]


def _check_metadata(metadata: Any, what: str) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Malformed(f"{what}: __metadata__ is not an object of strings")


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_size(name: str, dtype: str, shape: tuple[int, ...], size: int) -> None:
    bits = DTYPE_BITS.get(dtype)
    if bits is None:
        raise Malformed(f"tensor {name[:64]!r}: unknown dtype {dtype[:16]!r}")
    if len(shape) > MAX_RANK or any(not 0 <= extent < 2**63 for extent in shape):
        raise Malformed(f"tensor {name[:64]!r}: shape out of range")
    expected = prod(shape) * bits // 8
    if size != expected:
        raise Malformed(f"tensor {name[:64]!r}: {size} bytes of data, expected {expected} for {dtype} {list(shape)}")


def _update(hasher: blake3, part: bytes | memoryview) -> None:
    hasher.update(len(part).to_bytes(8, "little"))
    hasher.update(part)


def _digest(value: str, name: str) -> bytes:
    try:
        digest = bytes.fromhex(value)
    except ValueError:
        digest = b""
    if len(digest) != 32 or digest.hex() != value:
        raise Malformed(f"state: {name} is not 64 lowercase hex digits")
    return digest
