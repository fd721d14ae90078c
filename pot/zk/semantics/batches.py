"""From records to the tensors of a batch: which fields a program reads, and in what form.

Implements `specs/step-proof.md`, section "Records". A batch node is named after a field. `unsigned` and `signed` take
integers in lists nested in any way that holds as many as the node has for one record, in order; `marks` take integers
below the length of the last axis, each of which becomes a row with one 1.

Shows: which batch a step read, to whoever has the records. Does not show: which records a run used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pot.errors import Malformed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pot.zk.semantics.program import Program

    Ints = NDArray[np.int64]

__all__ = ["RecordField", "batch_arrays", "field_integers", "field_tensors"]


class RecordField(Protocol):
    """What a step says of a field of its records: a batch node, or an `AutoField`."""

    @property
    def name(self) -> str | None: ...
    @property
    def kind(self) -> str | None: ...
    @property
    def shape(self) -> list[int]: ...
    @property
    def width(self) -> int | None: ...


def batch_arrays(program: Program, records: Sequence[Mapping[str, Any]]) -> dict[str, Ints]:
    """int64 tensors by field, as `exact.run` takes them. Raises `Malformed`, which names record and field."""
    return field_tensors(program.batch, [program.nodes[index] for index in program.batches], records)


def field_tensors(count: int, fields: Sequence[RecordField], records: Sequence[Mapping[str, Any]]) -> dict[str, Ints]:
    """The same for the fields of a step that takes `count` records."""
    if len(records) != count:
        raise Malformed(f"batch: {len(records)} records, a step takes {count}; a run of it has batch_size {count}")
    for at, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise Malformed(f"record {at} of the batch: is {type(record).__name__}, not an object with fields")
    return {str(item.name): _tensor(item, records) for item in fields}


def _tensor(node: RecordField, records: Sequence[Mapping[str, Any]]) -> Ints:
    import numpy as np

    name, marks = str(node.name), node.kind == "marks"
    if marks and len(node.shape) < 2:
        raise Malformed(f"field {name}: marks need an axis of their own besides that of the records")
    each = math.prod(node.shape[1:-1] if marks else node.shape[1:])
    limit = node.shape[-1] if marks else 1 << (node.width or 0)
    rows = field_integers(name, each, range(-limit if node.kind == "signed" else 0, limit), records)
    values = np.array(rows, np.int64).reshape(len(rows), each)
    if marks:
        ones: Ints = (values[..., None] == np.arange(limit)).astype(np.int64).reshape(node.shape)
        return ones
    return values.reshape(node.shape)


def field_integers(name: str, each: int, within: range, records: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """For every record, the `each` integers of one field in order. Raises `Malformed`, which names record and field."""
    rows: list[list[int]] = []
    for at, record in enumerate(records):
        where = f"record {at} of the batch, field {name}"
        if name not in record:
            raise Malformed(f"{where}: is missing; the record has {', '.join(map(str, record))[:200] or 'no field'}")
        row = _flat(record[name], each, where)
        if len(row) != each:
            count = f"more than {each}" if len(row) > each else len(row)
            raise Malformed(f"{where}: holds {count} integers, {each} are expected")
        if row and not (min(row) in within and max(row) in within):
            raise Malformed(f"{where}: holds an integer outside {within[0]}..{within[-1]}")
        rows.append(row)
    return rows


def _flat(value: Any, each: int, where: str) -> list[int]:
    """The integers of a nested list, in order; stops early where there are too many."""
    found: list[int] = []
    open_ = [value]
    while open_ and len(found) <= each:
        item = open_.pop()
        if isinstance(item, list):
            open_ += reversed(item)
        elif type(item) is int:
            found.append(item)
        else:
            found_one = str(item)[:40] if isinstance(item, (bool, float)) else type(item).__name__
            raise Malformed(f"{where}: holds {found_one}, only integers in lists have a place there")
    return found
