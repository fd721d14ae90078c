"""The process in which ezkl runs: one call, files in, files out, under limits it sets on itself before ezkl loads.

Run by `pot.zk.engine` as a file, in Python's isolated mode, never imported by the package; it imports nothing but
the standard library and ezkl. The request is `request.json` in the current folder, the answer `reply.json`.

Does not show anything: its answers are as good as ezkl's, and its caller treats them as hostile too.
"""

from __future__ import annotations

import ctypes
import json
import resource
import signal
import sys
from pathlib import Path
from typing import Any

ELEMENT = 32
REQUEST = Path("request.json")
REPLY = Path("reply.json")
PR_SET_PDEATHSIG = 1


def limit(memory: int, seconds: int, file_bytes: int) -> None:
    """Memory, CPU seconds, file size, no core files; die with the parent where the system can do that."""
    for what, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (value, value))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def vectors(name: str, lengths: list[int]) -> list[list[str]]:
    """Vectors of field elements from a binary file: ezkl takes each element as little-endian hex."""
    data = Path(name).read_bytes()
    result, at = [], 0
    for length in lengths:
        block = data[at : at + length * ELEMENT]
        result.append([block[i : i + ELEMENT].hex() for i in range(0, len(block), ELEMENT)])
        at += length * ELEMENT
    return result


def point(value: Any) -> str:
    """x then y, big-endian hex, as in a proof; ezkl gives each coordinate little-endian."""
    x, y = (value.x, value.y) if hasattr(value, "x") else value
    return bytes.fromhex(x)[::-1].hex() + bytes.fromhex(y)[::-1].hex()


def version(ezkl: Any) -> str:
    from importlib.metadata import version as installed

    return installed("ezkl")


def call_make_srs(ezkl: Any, request: dict[str, Any]) -> dict[str, Any]:
    ezkl.gen_srs("srs", request["logrows"])
    return {}


def call_settings(ezkl: Any, request: dict[str, Any]) -> dict[str, Any]:
    arguments = ezkl.PyRunArgs()
    for name, value in request["arguments"].items():
        setattr(arguments, name, tuple(value) if isinstance(value, list) else value)
    ezkl.gen_settings("step.onnx", "settings.raw.json", py_run_args=arguments)
    return {}


def call_setup(ezkl: Any, request: dict[str, Any]) -> dict[str, Any]:
    ezkl.compile_circuit("step.onnx", "compiled", "settings.json")
    ezkl.setup("compiled", "vk", "pk", "srs")
    tables = Path(request["home"]) / "cache"
    return {"tables": sorted(entry.name for entry in tables.iterdir()) if tables.is_dir() else []}


def call_commit(ezkl: Any, request: dict[str, Any]) -> dict[str, Any]:
    points = []
    for vector in vectors("vectors", request["lengths"]):
        found = ezkl.kzg_commit(vector, "vk", "settings.json", "srs")
        if len(found) != 1:
            raise ValueError("a vector needs more than one column")
        points.append(point(found[0]))
    return {"points": points}


def _witness(ezkl: Any, request: dict[str, Any]) -> list[list[str]]:
    inputs = vectors("vectors", request["lengths"])
    Path("input.json").write_text(json.dumps({"input_data": inputs}))
    ezkl.gen_witness("input.json", "compiled", "witness.json", "vk", "srs")
    outputs: list[list[str]] = json.loads(Path("witness.json").read_bytes())["outputs"]
    return outputs


def call_mock(ezkl: Any, request: dict[str, Any]) -> dict[str, Any]:
    outputs = _witness(ezkl, request)
    try:
        satisfied = bool(ezkl.mock("witness.json", "compiled"))
    except RuntimeError:
        satisfied = False
    return {"satisfied": satisfied, "outputs": outputs}


def call_prove(ezkl: Any, request: dict[str, Any]) -> dict[str, Any]:
    outputs = "".join(element for out in _witness(ezkl, request) for element in out)
    if request["expected"] is not None and outputs != request["expected"]:
        return {"proven": False}
    ezkl.prove("witness.json", "compiled", "pk", "proof.json", "srs")
    found = json.loads(Path("proof.json").read_bytes())
    return {"proven": True, "hex_proof": found["hex_proof"]}


def call_verify(ezkl: Any, request: dict[str, Any]) -> dict[str, Any]:
    template = {"protocol": None, "split": None, "pretty_public_inputs": None, "timestamp": None, "version": None}
    results = []
    for proof, public in request["proofs"]:
        # of these two fields only the proof comes from the prover
        instances = [public[at : at + 2 * ELEMENT] for at in range(0, len(public), 2 * ELEMENT)]
        body = {**template, "instances": [instances], "proof": list(bytes.fromhex(proof)), "hex_proof": "0x" + proof}
        Path("proof.json").write_text(json.dumps(body))
        try:
            results.append(bool(ezkl.verify("proof.json", "settings.json", "vk", "srs")))
        except BaseException as error:  # key and settings are pinned, so an error or a panic is about the proof
            if isinstance(error, (KeyboardInterrupt, MemoryError, SystemExit)):
                raise
            results.append(False)
    return {"valid": results}


CALLS = {
    "make_srs": call_make_srs,
    "settings": call_settings,
    "setup": call_setup,
    "commit": call_commit,
    "mock": call_mock,
    "prove": call_prove,
    "verify": call_verify,
}


def main() -> int:
    request = json.loads(REQUEST.read_bytes())
    limit(request["memory"], request["seconds"], request["file_bytes"])
    try:
        import ezkl
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == "ezkl"
        REPLY.write_text(json.dumps({"missing": True} if absent else {"error": f"ezkl does not load: {error}"[:500]}))
        return 0
    reply: dict[str, Any]
    try:
        reply = {"result": CALLS[request["call"]](ezkl, request), "version": version(ezkl)}
    except BaseException as error:  # ezkl's PanicException is a BaseException; nothing may leave but a reply
        reply = {"error": f"{type(error).__name__}: {error}"[:500]}
    used = resource.getrusage(resource.RUSAGE_SELF)
    kilobyte = 1 if sys.platform == "darwin" else 1024
    reply |= {"cpu_seconds": used.ru_utime + used.ru_stime, "memory_bytes": used.ru_maxrss * kilobyte}
    REPLY.write_text(json.dumps(reply))
    return 0


if __name__ == "__main__":
    sys.exit(main())
