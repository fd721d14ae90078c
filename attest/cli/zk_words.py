"""What `pot zk show` says of a step: what it computes, what a proof of it shows, and what one takes.

Shows / does not show: see `pot.zk.kit`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from attest.cli.terminal import counted

if TYPE_CHECKING:
    from pot.zk.auto_program import AutoField, AutoProgram
    from pot.zk.family import Step
    from pot.zk.semantics.program import Node, Program

__all__ = ["described", "words"]

_INPUTS: Final = ("state", "batch", "constant")
_AUTO_LIMITS: Final = (
    "exact integers, or one result: a prover steers each rescale by its unit",
    "run and step: a step proof is tied to its place by its committed points alone",
)


def described(step: Step, onnx: bytes = b"") -> dict[str, Any]:
    """A step as a JSON value. `onnx`: the graph of a step of family auto, whose operations are counted."""
    from pot.zk.auto_program import AutoProgram

    common = {
        "label": step.label,
        "batch": step.batch,
        "parameters": step.parameters,
        "max_steps": step.max_steps,
    }
    return common | (_auto(step, onnx) if isinstance(step, AutoProgram) else _exact(step))


def _exact(program: Program) -> dict[str, Any]:
    nodes = program.nodes
    rounded = [node for node in nodes if node.limbs is not None]
    return {
        "family": "exact",
        "state": [_tensor(nodes[index]) for index in program.states],
        "fields": [_tensor(nodes[index]) for index in program.batches],
        "operations": _counts(node.op for node in nodes if node.op not in _INPUTS),
        "rounded_tensors": len(rounded),
        "rounded_values": sum(node.size for node in rounded),
        "slack": max(item.slack for item in program.next),
    }


def _auto(program: AutoProgram, onnx: bytes) -> dict[str, Any]:
    from pot.zk.auto_program import STATE_BITS

    state = {"bits": program.scale, "width": STATE_BITS, "kind": None}
    return {
        "family": "auto",
        "state": [{"name": item.name, "shape": item.shape, **state} for item in program.state],
        "fields": [_tensor(item) for item in program.fields],
        **({"operations": _counts(_operations(onnx))} if onnx else {}),
        "scale": program.scale,
        "lookup_bits": program.lookup_bits,
        "limb_bits": program.limb_bits,
        "limbs": program.limbs,
        "onnx_sha256": program.onnx_sha256,
        "not_shown": list(_AUTO_LIMITS),
    }


def _operations(onnx: bytes) -> list[str]:
    """Kinds of the graph's nodes. Raises `MissingExtra`, `Malformed`."""
    from pot.zk.auto_onnx import operations_of

    return operations_of(onnx)


def _counts(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _tensor(item: Node | AutoField) -> dict[str, Any]:
    return {"name": item.name, "shape": item.shape, "bits": item.bits, "width": item.width, "kind": item.kind}


def words(value: dict[str, Any]) -> list[str]:
    """Lines for people, of a step's description with its circuit's rows, costs and digests."""
    lines = [value["label"] or "a step without a name"]
    lines += [f"  state    {_said(tensor)}" for tensor in value["state"]]
    lines += [f"  field    {_said(tensor)}" for tensor in value["fields"]]
    if "operations" in value:
        lines.append("  computes " + ", ".join(f"{count} {op}" for op, count in value["operations"].items()))
    lines += _auto_words(value) if value["family"] == "auto" else _exact_words(value)
    rows = ", ".join(f"{rows:,}" for rows in value["rows"])
    lines.append(
        f"  circuit  {counted(len(value['rows']), 'part')}: {rows} of 2^{value['logrows']} rows,"
        f" {value['columns']} columns"
    )
    sizes = value.get("proof_bytes")
    lines.append(
        f"  proof    about {value['cpu_seconds']} CPU-seconds and {value['gigabytes']} GB"
        + (f"; {sum(sizes):,} bytes" if sizes else "")
    )
    digests = ("program_sha256", "circuit_sha256", "srs_sha256")
    return lines + [f"  {name[:-7]:8} {value[name]}" for name in digests if name in value]


def _exact_words(value: dict[str, Any]) -> list[str]:
    slack = value["slack"]
    exact = "is the exact step" if not slack else f"lies within 2^{slack} units of the exact step"
    return [
        f"  rounds   {counted(value['rounded_tensors'], 'tensor')}, {value['rounded_values']:,} values",
        f"  proves   that the next state {exact}; at most {value['max_steps']:,} steps of a run",
    ]


def _auto_words(value: dict[str, Any]) -> list[str]:
    reach = value["limb_bits"] * value["limbs"]
    return [
        f"  rounds   every product, to a unit of 2^-{value['scale']}, of fewer than 2^{reach} units",
        f"  tables   from -2^{value['lookup_bits']} to 2^{value['lookup_bits']} units",
        (
            "  proves   that the next state is the graph's step in ezkl's own quantisation (family auto), each rescale"
            f" right to one unit in the last place, in either direction; at most {value['max_steps']:,} steps of a run"
        ),
        *(f"  not      {limit}" for limit in value["not_shown"]),
    ]


def _said(tensor: dict[str, Any]) -> str:
    size = " x ".join(str(length) for length in tensor["shape"]) or "one"
    if tensor["kind"] == "marks":
        return f"{tensor['name']}: {size}, one of {tensor['shape'][-1]} marked"
    low = {"unsigned": "0 <= v", "signed": f"-2^{tensor['width']} <= v"}.get(tensor["kind"], "|v|")
    return f"{tensor['name']}: {size} integers v over 2^{tensor['bits']}, {low} < 2^{tensor['width']}"
