"""Declared operations on weights, recomputed bit by bit; and the digests of first and released weights.

Spec: `specs/certificate.md`, "Operations". `quantise/1` takes float weights to the integer grid, `dequantise/1` takes
them back. Both are functions: one input has one output, so recomputing decides.

Shows: the declared output is what the operation makes of the declared input, tensor by tensor.
Does not show: how the input came about.
"""

from __future__ import annotations

from collections.abc import Sequence

from attest.predicate import Operation
from attest.verdict.case import Case
from pot.canonical import sha256_hex
from pot.commitments.sharded import sharded_digest
from pot.commitments.state import TensorEntry, entries_from_safetensors, tensors_digest
from pot.errors import Malformed, PotError
from pot.recording.precommit import Parent, row_processes

__all__ = ["apply_operation", "check_operations", "initial_digest", "released_digest"]


def apply_operation(kind: str, entries: Sequence[TensorEntry]) -> list[TensorEntry]:
    """The operation's result on every tensor. Raises `Malformed` for tensors that it is not defined on."""
    import numpy as np

    from pot.zk.semantics.fixed import dequantise, quantise

    result: list[TensorEntry] = []
    for entry in entries:
        wanted = "F32" if kind == "quantise/1" else "I64"
        if entry.dtype != wanted:
            raise Malformed(f"{kind}: tensor {entry.name[:64]!r} is {entry.dtype}, the operation takes {wanted}")
        values = np.frombuffer(entry.data, dtype="<f4" if wanted == "F32" else "<i8").reshape(entry.shape)
        if kind == "quantise/1":
            made, dtype = np.ascontiguousarray(quantise(values), dtype="<i8"), "I64"
        else:
            made, dtype = np.ascontiguousarray(dequantise(values), dtype="<f4"), "F32"
        result.append(TensorEntry(entry.name, dtype, entry.shape, made.tobytes()))
    return result


def check_operations(case: Case) -> dict[str, str]:
    """Recompute every declared operation. Writes `operation`; returns output -> input digest of those that hold."""
    good: dict[str, str] = {}
    for number, operation in enumerate(case.certificate.operations, 1):
        subject = f"operation {number} ({operation.type})"
        source = _operand(case, operation.input_sha256, f"the input of {operation.type}")
        target = _operand(case, operation.output_sha256, f"the output of {operation.type}")
        if source is None or target is None:
            continue
        try:
            expected = tensors_digest("model", apply_operation(operation.type, entries_from_safetensors(source)))
            found = tensors_digest("model", entries_from_safetensors(target))
        except PotError as error:
            case.ledger.failed("operation", subject, str(error))
            continue
        if expected != found:
            case.ledger.failed(
                "operation", subject, "recomputed, it gives other weights", expected=expected, found=found
            )
            continue
        case.ledger.passed("operation", subject, "recomputed here: the same weights bit by bit")
        good[operation.output_sha256] = operation.input_sha256
    return good


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
