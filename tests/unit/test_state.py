"""State digests: every covered byte counts, and a released safetensors file gives the model's digest without torch."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from blake3 import blake3
from safetensors.numpy import save

from pot.commitments.state import (
    FIRST_STATE,
    MAX_HEADER_BYTES,
    TensorEntry,
    entries_from_safetensors,
    json_digest,
    state_digest,
    tensors_digest,
)
from pot.errors import LimitExceeded, Malformed

WEIGHT = TensorEntry("fc.weight", "F32", (2, 3), bytes(range(24)))
BIAS = TensorEntry("fc.bias", "F32", (2,), bytes(8))
D1, D2, D3 = "11" * 32, "22" * 32, "33" * 32


def test_tensors_digest_is_length_prefixed_name_dtype_shape_data() -> None:
    hasher = blake3(derive_key_context="pot/tensors/v1")
    shape = (2).to_bytes(8, "little") + (3).to_bytes(8, "little")
    for part in (b"model", b"fc.weight", b"F32", shape, bytes(range(24))):
        hasher.update(len(part).to_bytes(8, "little") + part)
    assert tensors_digest("model", [WEIGHT]) == hasher.hexdigest()


def test_each_field_changes_the_tensors_digest() -> None:
    variants = [
        ("model", WEIGHT),
        ("optimizer", WEIGHT),
        ("model", TensorEntry("fc.weighs", "F32", (2, 3), WEIGHT.data)),
        ("model", TensorEntry("fc.weight", "I32", (2, 3), WEIGHT.data)),
        ("model", TensorEntry("fc.weight", "F32", (3, 2), WEIGHT.data)),
        ("model", TensorEntry("fc.weight", "F32", (6,), WEIGHT.data)),
        ("model", TensorEntry("fc.weight", "F32", (2, 3), bytes(24))),
    ]
    assert len({tensors_digest(kind, [entry]) for kind, entry in variants}) == len(variants)


def test_order_repeats_unknown_dtypes_and_wrong_lengths_are_refused() -> None:
    for entries in (
        [WEIGHT, BIAS],
        [BIAS, BIAS],
        [TensorEntry("a", "F33", (1,), bytes(4))],
        [TensorEntry("a", "F32", (1,), bytes(5))],
        [TensorEntry("a", "F32", (-1,), b"")],
        [TensorEntry("a", "F32", (1,) * 65, bytes(4))],
    ):
        with pytest.raises(Malformed):
            tensors_digest("model", entries)


def test_any_buffer_gives_the_same_digest() -> None:
    data = np.arange(6, dtype=np.float32)
    entry = TensorEntry("a", "F32", (2, 3), memoryview(data))
    assert tensors_digest("model", [entry]) == tensors_digest(
        "model", [TensorEntry("a", "F32", (2, 3), data.tobytes())]
    )
    assert len(tensors_digest("model", [TensorEntry("empty", "F32", (0, 3), b"")])) == 64
    assert len(tensors_digest("model", [TensorEntry("scalar", "I64", (), bytes(8))])) == 64


def test_a_safetensors_file_gives_the_recorded_digest() -> None:
    arrays = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.arange(4, dtype=np.int64),
        "scalar": np.array(7, dtype=np.uint8),
        "empty": np.zeros((0, 2), dtype=np.float64),
    }
    names = {"b": "F32", "a": "I64", "scalar": "U8", "empty": "F64"}
    recorded = [TensorEntry(name, names[name], arrays[name].shape, arrays[name].tobytes()) for name in sorted(arrays)]
    released = entries_from_safetensors(save(arrays, metadata={"format": "pt"}))
    assert tensors_digest("model", released) == tensors_digest("model", recorded)


def file_with(header: object, body: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8), **more: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


GOOD = file_with({"a": entry()})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOOD[:7],
        GOOD[:-1],
        GOOD + b"\0",
        GOOD[:20],
        file_with(b"[1]"),
        file_with(b" {}", b""),
        file_with(b'{"a":1}'),
        file_with({"a": entry(dtype="F33")}),
        file_with({"a": entry(dtype=4)}),
        file_with({"a": entry(shape=(3,))}),
        file_with({"a": entry(shape=(-2,))}),
        file_with({"a": entry(shape=(2.0,))}),
        file_with({"a": entry(shape=(True, 2))}),
        file_with({"a": entry(shape="2")}),
        file_with({"a": entry(offsets=(0,))}),
        file_with({"a": entry(offsets=(8, 0))}),
        file_with({"a": entry(offsets=(0, 8, 8))}),
        file_with({"a": entry(offsets=(4, 12))}, bytes(12)),
        file_with({"a": entry(extra=1)}),
        file_with({"a": entry(), "b": entry()}),
        file_with({"a": entry(), "b": entry(offsets=(9, 17))}, bytes(17)),
        file_with({"a": entry(shape=(2**52, 2**52), offsets=(0, 8))}),
        file_with(
            b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
        ),
        file_with({"a": entry(), "__metadata__": {"x": 1}}),
        file_with({"a": entry(), "__metadata__": []}),
        file_with(b'{"a":' + b"[" * 100 + b"]" * 100 + b"}"),
        b"\x80\x04\x95" + bytes(100),
    ],
)
def test_hostile_safetensors_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        entries_from_safetensors(data)


def test_a_huge_header_is_refused_before_it_is_read() -> None:
    with pytest.raises(LimitExceeded):
        entries_from_safetensors(struct.pack("<Q", MAX_HEADER_BYTES + 1) + b"{}")
    with pytest.raises(LimitExceeded):
        entries_from_safetensors(struct.pack("<Q", 2**64 - 1) + b"{}")


def test_json_digest_covers_kind_and_canonical_value() -> None:
    assert json_digest("cursor", {"b": 1, "a": "2"}) == json_digest("cursor", {"a": "2", "b": 1})
    assert json_digest("cursor", {"a": 1}) != json_digest("rng", {"a": 1})
    assert json_digest("cursor", {"a": 1}) != json_digest("cursor", {"a": "1"})


def test_each_part_changes_the_state_digest() -> None:
    base = {"model": D1, "optimizer": D2}
    variants = [
        (base, 0, D3, FIRST_STATE),
        ({"model": D1}, 0, D3, FIRST_STATE),
        ({"model": D2, "optimizer": D1}, 0, D3, FIRST_STATE),
        ({"model": D1, "rng": D2}, 0, D3, FIRST_STATE),
        (base, 1, D3, FIRST_STATE),
        (base, 0, D2, FIRST_STATE),
        (base, 0, D3, D1),
    ]
    assert len({state_digest(*variant) for variant in variants}) == len(variants)
    reordered = {"optimizer": D2, "model": D1}
    assert state_digest(reordered, 0, D3, FIRST_STATE) == state_digest(*variants[0])


@pytest.mark.parametrize(
    ("components", "step", "config", "previous"),
    [
        ({}, 0, D1, D2),
        ({"optimizer": D1}, 0, D1, D2),
        ({"model": D1, "extra": D2}, 0, D1, D2),
        ({"model": "11"}, 0, D1, D2),
        ({"model": D1.upper().replace("1", "A")}, 0, D1, D2),
        ({"model": D1}, -1, D1, D2),
        ({"model": D1}, 2**63, D1, D2),
        ({"model": D1}, 0, "", D2),
        ({"model": D1}, 0, D1, ""),
    ],
)
def test_malformed_states_are_refused(components: dict[str, str], step: int, config: str, previous: str) -> None:
    with pytest.raises(Malformed):
        state_digest(components, step, config, previous)
