"""The auditor's own environment: what of a record can excuse that a replay gives other bits.

The record of a run is the prover's word, and so is what the replayed program reports of this machine. A difference
excuses only what the auditor's own machine, asked without the program, confirms; and what can be set as recorded
(threads, the processor's instruction set) is set, so that it excuses nothing at all.

Shows: which recorded conditions this machine cannot provide.
Does not show: that the record is true: what no setting can imitate (another processor, another library) stays an
excuse, and INCONCLUSIVE counts for nothing.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Final

from pot.audit.replaying.sandbox import Limits, run_limited
from pot.canonical import parse_canonical, read_file
from pot.errors import EnvironmentFailure, PotError
from pot.recording.environment import capture, differences, environment_sha256, variables

__all__ = ["OwnEnvironment"]

_ASK: Final = """
import importlib.util, sys
from pathlib import Path
if sys.argv[1] == "torch" and importlib.util.find_spec("torch") is not None:
    import torch
from pot.canonical import canonical_bytes
from pot.recording.environment import capture
Path("own.json").write_bytes(canonical_bytes(capture()))
"""
_LIMIT: Final = 1 << 20
_MAX_THREADS: Final = 1024
_CAPABILITIES: Final = ("default", "avx2", "avx512")  # x86, each holding those before it
_THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_CAPABILITY: Final = "ATEN_CPU_CAPABILITY"


class OwnEnvironment:
    """What this machine is, asked once and only when a replay differs."""

    def __init__(
        self,
        recorded: Mapping[str, Any],
        limits: Limits,
        hidden: Sequence[Path],
        stagings: Path,
        seen: Path,
        given: Mapping[str, str],
    ) -> None:
        """`recorded`: the run's environment; `given`: variables that the auditor sets besides the recorded ones."""
        self.python = sys.executable
        self._recorded = recorded
        self._limits = limits
        self._hidden = list(hidden)
        self._stagings, self._seen = stagings, seen
        self._given = dict(given)
        self._adopted: dict[str, str] = {}
        self.capability: str | None = None
        """The processor's own instruction set, once another was adopted."""
        self._asked: dict[str, Any] | None = None
        self._lock = Lock()

    def variables(self) -> dict[str, str]:
        """The recorded variables that can change bits, the auditor's, and the settings adopted from the record."""
        found = _bits(self._recorded).get("variables")
        texts = found if isinstance(found, dict) else {}
        plain = {key: value for key, value in texts.items() if isinstance(value, str)}
        # no others: LD_PRELOAD would run the prover's code before the walls stand
        return {**variables(plain), **self._given, **self._adopted}

    def foreign(self, reported: Mapping[str, Any] | None) -> list[str]:
        """Differences between the record and the replay's report that this machine, asked by itself, confirms."""
        expected = self._expected()
        found = differences(expected, reported or {})
        if not found:
            return []
        confirmed = {_key(text) for text in differences(expected, self._own())}
        return [text for text in found if _key(text) in confirmed]

    def settings(self) -> dict[str, str]:
        """The variables that are set because the record's values differ from this machine's."""
        return dict(self._adopted)

    def sha256(self) -> str:
        """The digest of this machine's environment, as it says itself: what a replay reports is the program's word."""
        try:
            found = self._asked_here()
        except EnvironmentFailure:  # the recorded variables are none that can be set
            found = None
        return environment_sha256(found if found is not None else capture())

    def adopt(self, reported: Mapping[str, Any] | None) -> None:
        """Set what can be set as it was recorded, and what the replay reported otherwise, for the replays to come."""
        torch, own = _bits(self._recorded).get("torch"), _bits(self._own()).get("torch")
        if not isinstance(torch, dict) or not isinstance(own, dict):
            return
        unlike = {_key(text) for text in self.foreign(reported)}
        wanted: dict[str, str] = {}
        threads = str(torch.get("threads", ""))
        known = threads.isascii() and threads.isdigit() and 1 <= int(threads[:5]) <= _MAX_THREADS
        if known and "torch.threads" in unlike:
            wanted.update(dict.fromkeys(_THREADS, threads))
        capability, ours = (str(item.get("cpu_capability", "")).lower() for item in (torch, own))
        if "torch.cpu_capability" in unlike and capability in _below(ours):
            wanted[_CAPABILITY], self.capability = capability, ours
        given = _bits(self._recorded).get("variables")
        taken = given if isinstance(given, dict) else {}
        self._adopted = {**self._adopted, **{name: value for name, value in wanted.items() if name not in taken}}

    def _expected(self) -> dict[str, Any]:
        """The record, with the settings that the auditor made in its name among its variables."""
        expected = copy.deepcopy(dict(self._recorded))
        if self._adopted and isinstance(expected.get("bits"), dict):
            found = expected["bits"].get("variables")
            expected["bits"]["variables"] = {**(found if isinstance(found, dict) else {}), **self._adopted}
        return expected

    def _own(self) -> dict[str, Any]:
        """What this machine says of itself; the record where it says nothing: what is not confirmed excuses nothing."""
        found = self._asked_here()
        return found if found is not None else dict(self._recorded)

    def _asked_here(self) -> dict[str, Any] | None:
        """This machine's record under the recorded variables, made by our code alone, behind the same walls."""
        with self._lock:
            key = dict(self._adopted)
            if self._asked is None or self._asked["adopted"] != key:
                self._asked = {"adopted": key, "environment": self._ask()}
            environment: dict[str, Any] | None = self._asked["environment"]
            return environment

    def _ask(self) -> dict[str, Any] | None:
        import pot

        torch = "torch" if "torch" in _bits(self._recorded) else "no"
        with tempfile.TemporaryDirectory(dir=self._stagings) as place:
            folder = Path(place)
            settings = {
                **self.variables(),
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "LANG": "C.UTF-8",
                "PYTHONPATH": str(Path(pot.__file__).resolve().parent.parent),
            }
            run_limited(
                [self.python, "-s", "-B", "-c", _ASK, torch], folder, settings, self._limits,
                [*self._hidden, self._stagings], folder / "stderr", self._seen,
            )  # fmt: skip
            try:
                found = parse_canonical(read_file(folder / "own.json", limit=_LIMIT), what="own environment")
            except PotError:
                return None
            return found if isinstance(found, dict) else None


def _bits(environment: Mapping[str, Any]) -> Mapping[str, Any]:
    bits = environment.get("bits")
    return bits if isinstance(bits, dict) else {}


def _key(difference: str) -> str:
    return difference.partition(":")[0]


def _below(capability: str) -> tuple[str, ...]:
    """The instruction sets that can be asked for; a higher one than the processor's ends the program at once."""
    return _CAPABILITIES[: _CAPABILITIES.index(capability)] if capability in _CAPABILITIES else ()
