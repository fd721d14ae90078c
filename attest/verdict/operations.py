"""Declared operations on weights, recomputed bit by bit; and the digests of first and released weights.

Spec: `specs/certificate.md`, "Operations". `quantise/1` takes float weights to the integer grid, `dequantise/1` takes
them back. Each tensor is converted or stays as it is, byte for byte; its dtype in the output says which. On one tensor
both are functions, so recomputing decides; and both convert the same ones, so that nothing is half converted.

Shows: the declared output is what the operation makes of the declared input, tensor by tensor.
Does not show: how the input came about; that the tensors which are converted are those that a step program trains
(`attest.verdict.step_states`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from attest.predicate import Operation
from attest.verdict.case import Case
from pot.canonical import sha256_hex
from pot.commitments.sharded import sharded_digest
from pot.commitments.state import TensorEntry, entries_from_safetensors, tensors_digest
from pot.errors import Malformed, PotError
from pot.recording.precommit import Parent, row_processes

__all__ = ["apply_operation", "check_operations", "initial_digest", "released_digest"]


_DTYPES: Final = {"quantise/1": ("F32", "I64"), "dequantise/1": ("I64", "F32")}
"""What an operation takes, and what it makes of it."""


def apply_operation(
    kind: str, entries: Sequence[TensorEntry], names: Collection[str] | None = None
) -> list[TensorEntry]:
    """The operation's result: tensors of `names` (all, if None) are converted, the others are as they were.

    Raises `Malformed` for tensors that it is not defined on.
    """
    import numpy as np

    from pot.zk.semantics.fixed import dequantise, quantise

    result: list[TensorEntry] = []
    for entry in entries:
        if names is not None and entry.name not in names:
            result.append(entry)
            continue
        wanted, dtype = _DTYPES[kind]
        if entry.dtype != wanted:
            raise Malformed(f"{kind}: tensor {entry.name[:64]!r} is {entry.dtype}, the operation takes {wanted}")
        values = np.frombuffer(entry.data, dtype="<f4" if wanted == "F32" else "<i8").reshape(entry.shape)
        if kind == "quantise/1":
            made = np.ascontiguousarray(quantise(values), dtype="<i8")
        else:
            made = np.ascontiguousarray(dequantise(values), dtype="<f4")
        result.append(TensorEntry(entry.name, dtype, entry.shape, made.tobytes()))
    return result


def check_operations(case: Case) -> dict[str, str]:
    """Recompute every declared operation. Writes `operation`; returns output -> input digest of those that hold.

    Fills `case.converted`.
    """
    good: dict[str, str] = {}
    for number, operation in enumerate(case.certificate.operations, 1):
        subject = f"operation {number} ({operation.type})"
        source = _operand(case, operation.input_sha256, f"the input of {operation.type}")
        target = _operand(case, operation.output_sha256, f"the output of {operation.type}")
        if source is None or target is None:
            continue
        try:
            before, after = entries_from_safetensors(source), entries_from_safetensors(target)
            names = _converted(operation.type, before, after)
            expected = tensors_digest("model", apply_operation(operation.type, before, names))
            found = tensors_digest("model", after)
            _check_names(case, operation.type, before, names)
        except PotError as error:
            case.ledger.failed("operation", subject, str(error))
            continue
        if expected != found:
            case.ledger.failed(
                "operation", subject, "recomputed, it gives other weights", expected=expected, found=found
            )
            continue
        stayed = len(before) - len(names)
        others = f"; {stayed} of {len(before)} tensors are the same bytes in both" if stayed else ""
        case.ledger.passed("operation", subject, f"recomputed here: the same weights bit by bit{others}")
        good[operation.output_sha256] = operation.input_sha256
        case.converted[operation.output_sha256] = names
    return good


def _converted(kind: str, before: Sequence[TensorEntry], after: Sequence[TensorEntry]) -> frozenset[str]:
    """The tensors that the operation must have converted, for they have another dtype in its output."""
    takes, makes = _DTYPES[kind]
    made = {entry.name for entry in after if entry.dtype == makes}
    return frozenset(entry.name for entry in before if entry.dtype == takes and entry.name in made)


def _check_names(case: Case, kind: str, before: Sequence[TensorEntry], names: frozenset[str]) -> None:
    """The release's conversion is the way back from the parent's: a weight that stayed an integer would be read as one.

    Raises `Malformed`.
    """
    if (
        case.certificate.run.semantics == "float"
    ):  # what it releases, frozen tensors too, would be read as other numbers
        raise Malformed(f"{kind}: a run in floats converts no weights")
    if not names:
        takes, makes = _DTYPES[kind]
        raise Malformed(f"{kind}: converts no tensor; the operation takes {takes} and makes {makes} of it")
    others = set(case.converted.values()) - {names}
    if others:
        name = min(next(iter(others)) ^ names)
        raise Malformed(f"{kind}: the run's operations do not convert the same tensors; one leaves out {name[:64]!r}")
    parent = case.precommit.parent if case.precommit is not None else None
    begun = parent is not None and parent.operation == "quantise/1"
    left = [entry.name for entry in before if entry.dtype == "I64" and entry.name not in names]
    if kind == "dequantise/1" and left and not begun:
        raise Malformed(f"{kind}: leaves {left[0][:64]!r} an integer, and no parent's release has it so")


def released_digest(case: Case, operations: dict[str, str]) -> str | None:
    """Digest of the model component that the released weights stand for; None where it cannot be told."""
    weights = case.weights("released-weights")
    if weights is None:
        return None
    if case.certificate.run.semantics == "float":
        return _digest(case, "released-weights", weights)
    output = case.weights_sha256()
    source = operations.get(output or "")
    if source is None or _declared(case, output, "dequantise/1") is None:
        case.ledger.not_checked(
            "released-weights", "model", "exact run, but no dequantise/1 that holds leads to the released weights"
        )
        return None
    data = case.object("released-weights", source, "the integer weights")
    return None if data is None else _digest(case, "released-weights", data)


def initial_digest(case: Case, wanted: Parent, operations: dict[str, str]) -> str | None:
    """Digest of the model component that the parent's released weights stand for; None where it cannot be told.

    `wanted`: the parent as the pre-commitment names it.
    """
    parent = next((p for p in case.parents if p.sha256 == wanted.certificate_sha256), None)
    if parent is None:
        case.ledger.not_checked("initial-weights", "first weights", "the parent's certificate is not there")
        return None
    if parent.certified.statement.subject_sha256 != wanted.model_sha256:
        case.ledger.failed(
            "initial-weights",
            "first weights",
            "the parent's certificate is about another model than the pre-committed one",
            expected=wanted.model_sha256,
            found=parent.certified.statement.subject_sha256,
        )
        return None
    released = parent.weights_sha256()
    if wanted.operation == "none":
        data = None if released is None else case.object("operation", released, "the parent's released weights")
        return None if data is None else _digest(case, "initial-weights", data)
    for operation in case.certificate.operations:
        if operation.type == wanted.operation and operation.input_sha256 == released:
            if operations.get(operation.output_sha256) != released:
                case.ledger.not_checked("initial-weights", "first weights", f"{operation.type} does not hold")
                return None
            data = case.object("operation", operation.output_sha256, "the first integer weights")
            return None if data is None else _digest(case, "initial-weights", data)
    case.ledger.failed(
        "initial-weights", "first weights", f"no {wanted.operation} of the parent's released weights is declared"
    )
    return None


def _declared(case: Case, output: str | None, kind: str) -> Operation | None:
    return next((o for o in case.certificate.operations if o.output_sha256 == output and o.type == kind), None)


def _operand(case: Case, sha256: str, what: str) -> bytes | None:
    weights = case.release.weights
    if case.at_hand and weights is not None and sha256_hex(weights) == sha256:
        return weights
    return case.object("operation", sha256, what)


def _digest(case: Case, code: str, data: bytes) -> str | None:
    processes = 1 if case.precommit is None else row_processes(case.precommit)
    try:
        entries = entries_from_safetensors(data)
        return tensors_digest("model", entries) if processes == 1 else sharded_digest("model", entries, processes)
    except PotError as error:
        case.ledger.failed(code, "model", str(error))
        return None
