"""The states of the random generators that training draws from: Python's, NumPy's, PyTorch's, in a form to commit to.

Spec: `specs/transcript.md`, component `rng`. Where several processes train, each has its own generators, and of the
processors in the machine only its own.

Shows / does not show: nothing; generators that a program makes for itself are not seen.
"""

from __future__ import annotations

import random
import sys
from typing import Any

from pydantic import JsonValue

from pot.errors import Malformed

__all__ = ["capture_rng", "restore_rng"]


def capture_rng(*, own_device: bool = False) -> dict[str, JsonValue]:
    """The states of Python's, NumPy's and PyTorch's global generators, as far as these modules are loaded.

    `own_device`: of CUDA's devices the current one only, under the key `cuda_current`.
    """
    version, words, gauss = random.getstate()
    state: dict[str, JsonValue] = {
        "python": [str(version), _words(words), "none" if gauss is None else float(gauss).hex()]
    }
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        kind, keys, position, has_gauss, cached = numpy.random.get_state()
        state["numpy"] = [kind, _words(keys), str(position), str(has_gauss), float(cached).hex()]
    torch = sys.modules.get("torch")
    if torch is not None:
        state["torch"] = bytes(torch.get_rng_state().numpy()).hex()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            if own_device:
                state["cuda_current"] = bytes(torch.cuda.get_rng_state().numpy()).hex()
            else:
                state["cuda"] = [bytes(item.numpy()).hex() for item in torch.cuda.get_rng_state_all()]
    return state


def restore_rng(state: Any, *, what: str) -> None:
    """Set the generators to a state that `capture_rng` gave. Raises `Malformed`."""
    try:
        version, words, gauss = state["python"]
        random.setstate((int(version), _unwords(words), None if gauss == "none" else float.fromhex(gauss)))
        if "numpy" in state:
            import numpy

            kind, keys, position, has_gauss, cached = state["numpy"]
            array = numpy.array(_unwords(keys), dtype=numpy.uint32)
            numpy.random.set_state((kind, array, int(position), int(has_gauss), float.fromhex(cached)))
        if "torch" in state:
            import torch

            torch.set_rng_state(_byte_tensor(torch, state["torch"]))
            if "cuda" in state:
                torch.cuda.set_rng_state_all([_byte_tensor(torch, item) for item in state["cuda"]])
            if "cuda_current" in state:
                torch.cuda.set_rng_state(_byte_tensor(torch, state["cuda_current"]))
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, RuntimeError) as error:
        raise Malformed(f"{what}: not the state of the random generators: {error}") from None


def _byte_tensor(torch: Any, text: str) -> Any:
    return torch.frombuffer(bytearray(bytes.fromhex(text)), dtype=torch.uint8).clone()


def _words(words: Any) -> str:
    return b"".join(int(word).to_bytes(4, "little") for word in words).hex()


def _unwords(text: str) -> tuple[int, ...]:
    data = bytes.fromhex(text)
    return tuple(int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4))
