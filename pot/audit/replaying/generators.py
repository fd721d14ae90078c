"""The generators' state in a start checkpoint: nothing in it but what generators are, of the sizes that they have.

Spec: `specs/transcript.md`, "Audit". A replayed program reads it, and a digest covers it, whatever it holds: further
keys, or longer ones, could carry the very end state that the program is to compute.

Shows: that a state of generators has the form of one.
Does not show: that these generators ever were in that state: 10 KB of it are free to choose, as the state itself is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from pot.errors import Malformed
from pot.recording.precommit import Precommit
from pot.recording.state import read_state_document

__all__ = ["check_generators"]

_FLOAT_CHARS: Final = 32
_DEVICES: Final = 128
_DEVICE_BYTES: Final = 64  # CUDA's generators have 16
_TORCH_BYTES: Final = 5056
_PYTHON_WORDS, _NUMPY_WORDS = 625, 624
_COUNT: Final = "0|[1-9][0-9]{0,14}"


def check_generators(path: Path, precommit: Precommit) -> None:
    """Check the `rng` of a checkpoint's `state.json`. Raises `Malformed` for anything but generators' states."""
    document = read_state_document(path)
    processes = int(precommit.layout.processes) if precommit.layout is not None else 1
    stream = precommit.order.method == "stream/1"
    rng: Any = document["rng"]
    states = [rng]
    if processes > 1:
        if not isinstance(rng, dict) or set(rng) != {"ranks"} or not isinstance(rng["ranks"], list):
            raise Malformed("the generators' state is not that of several processes")
        states = rng["ranks"]
        if len(states) != processes:
            raise Malformed(f"the generators' state is that of {len(states)} processes, committed are {processes}")
    for state in states:
        name = _foreign(state, stream)
        if name is not None:
            raise Malformed(f"the generators' state holds something else: {name[:40]!r}")


def _foreign(state: Any, stream: bool) -> str | None:
    """The first key that no generator has, or whose value has another form than its generator's."""
    if not isinstance(state, dict):
        return type(state).__name__
    for name, value in state.items():
        known = _FORMS.get(name)
        if known is None and not (stream and name == "stream" and _is_stream(value)):
            return str(name)
        if known is not None and not known(value):
            return str(name)
    return None


def _is_stream(value: Any) -> bool:
    """What is remembered of an iterable dataset: its epoch, the steps before it and the generators at its beginning."""
    return (
        isinstance(value, dict)
        and set(value) == {"epoch", "first", "generators"}
        and _is(_COUNT, value["epoch"])
        and _is(_COUNT, value["first"])
        and (value["generators"] is None or _foreign(value["generators"], stream=False) is None)
    )


def _is(pattern: str, value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII) is not None


def _is_hex(value: Any, size: int, least: int | None = None) -> bool:
    """Lower-case hex of `size` bytes, or of `least` to `size`."""
    low = 2 * (size if least is None else least)
    return isinstance(value, str) and low <= len(value) <= 2 * size and len(value) % 2 == 0 and _is("[0-9a-f]*", value)


def _is_float(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _FLOAT_CHARS and _is(r"-?0x[01]\.[0-9a-f]+p[+-][0-9]+", value)


def _is_python(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 3:
        return False
    version, words, gauss = value
    return version == "3" and _is_hex(words, 4 * _PYTHON_WORDS) and (gauss == "none" or _is_float(gauss))


def _is_numpy(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 5:
        return False
    kind, words, position, has_gauss, cached = value
    known = kind == "MT19937" and _is_hex(words, 4 * _NUMPY_WORDS) and has_gauss in {"0", "1"}
    return known and _is(_COUNT, position) and _is_float(cached)


def _is_devices(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= _DEVICES and all(map(_is_device, value))


def _is_device(value: Any) -> bool:
    return _is_hex(value, _DEVICE_BYTES, least=1)


_FORMS: Final = {
    "python": _is_python,
    "numpy": _is_numpy,
    "torch": lambda value: _is_hex(value, _TORCH_BYTES),
    "cuda": _is_devices,
    "cuda_current": _is_device,
}
