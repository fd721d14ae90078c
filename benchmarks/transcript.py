"""What a reader pays for a transcript: reading and checking 100,000 steps without torch, and looking up the order.

Part of `make bench-recorder`. Each number is CPU seconds of one core in a process of its own; making the transcripts is
not measured.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from table import Row

from pot.canonical import canonical_bytes, sha256_hex
from pot.commitments.order import Permutation, batch_records
from pot.commitments.seed import run_seed
from pot.commitments.state import json_digest, state_digest
from pot.recording.config import config_digest
from pot.recording.environment import environment_sha256
from pot.recording.precommit import Precommit, files_due
from pot.recording.transcript import ZERO_DIGEST, batch_digest, check_chain, previous_digest, read_transcript
from pot.recording.writing.file_names import checkpoint_files

__all__ = ["transcript_rows"]

STEPS = 100_000
BATCH = 32
EVERY, STATE_EVERY = 50, 100
SECONDS = 2.0  # for reading and checking them
MEMORY = 0.3  # GB
DATASETS = ((1_000_000, "1 M records"), (60_000, "60 k records"))
ORDERS = ((10**6, "1 M records"), (10**9, "1 G records"))
POSITIONS = 20_000_000
PER_SECOND = 10_000_000
_NONCE = "ab" * 32


def precommit_of(records: int, steps: int, every: int = EVERY, state_every: int = STATE_EVERY) -> Precommit:
    """A pre-commitment as a run over one dataset makes it; its digests are those of nothing."""
    bits = {"python": "3.11"}
    data = {"name": "train", "commitment_sha256": "11" * 32, "view": "text/1", "records": str(records)}
    content = {
        "version": "pot/precommit/v1", "run_id": "22" * 32, "semantics": "float",
        "data": [{**data, "records_root_blake3": "33" * 32, "set_root_blake3": "44" * 32}],
        "config": {"lr": "0.1"}, "config_blake3": config_digest({"lr": "0.1"}),
        "program": {"command": [], "files": [], "data_files": []},
        "environment": {"bits": bits}, "environment_sha256": environment_sha256({"bits": bits}),
        "order": {"method": "feistel/1", "batch": str(BATCH), "drop_last": True},
        "steps": str(steps), "checkpoint_every": str(every), "state_every": str(state_every), "seed_source": "self",
    }  # fmt: skip
    return Precommit.from_value(content, what="benchmark")


def transcript_of(precommit: Precommit) -> bytes:
    """The transcript that an honest run of this pre-commitment would leave, but for the states, which are made up."""
    lines, previous = [], ZERO_DIGEST
    for number, event in enumerate(_events(precommit)):
        lines.append(canonical_bytes({**event, "index": str(number), "previous": previous}))
        previous = previous_digest(lines[-1])
    return b"".join(line + b"\n" for line in lines)


def _events(precommit: Precommit) -> Iterator[dict[str, object]]:
    sha256, steps, size = precommit.sha256(), int(precommit.steps), int(precommit.data[0].records)
    seed, state = run_seed(sha256, bytes.fromhex(_NONCE)), ZERO_DIGEST
    yield {"type": "start", "precommit_sha256": sha256, "nonce": _NONCE, "nonce_source": "self"}
    for step in range(steps + 1):
        place = (0, 0)
        if step:
            *place, records = batch_records(seed, size, BATCH, step)
            yield {
                "type": "step", "step": str(step), "epoch": str(place[0]), "position": str(place[1]),
                "records": str(BATCH), "batch_blake3": batch_digest(records), "loss": repr(2.302585092994046 / step),
            }  # fmt: skip
        if step % int(precommit.checkpoint_every) and step != steps:
            continue
        cursor = {"epoch": str(place[0]), "position": str(place[1]), "step": str(step)}
        digest = sha256_hex(str(step).encode())
        components = {"cursor": json_digest("cursor", cursor), "model": digest, "optimizer": digest, "rng": digest}
        before, state = state, state_digest(components, step, precommit.config_blake3, state)
        names = checkpoint_files(step, components) if files_due(precommit, step) else []
        yield {
            "type": "checkpoint", "step": str(step), "components": components, "state_blake3": state,
            "previous_state_blake3": before,
            "files": [{"path": min(paths), "bytes": "1000000", "sha256": digest} for paths in names],
        }  # fmt: skip
    yield {"type": "end", "step": str(steps), "state_blake3": state, "model_blake3": digest}


def transcript_rows(scale: float) -> list[Row]:
    """Verification and order look-ups of `scale` times the full size; the budget of seconds shrinks with it."""
    rows, steps, budget = [], max(1, int(STEPS * scale)), SECONDS * scale
    with tempfile.TemporaryDirectory() as folder:
        for records, name in DATASETS:
            precommit = precommit_of(records, steps)
            promised, written = Path(folder) / "precommit.json", Path(folder) / "transcript.jsonl"
            promised.write_bytes(precommit.to_bytes())
            written.write_bytes(transcript_of(precommit))
            cpu, peak = _of_its_own("verify", promised, written)
            what = f"verify {steps:,} steps, {name}"
            rows.append(Row(what, cpu, "CPU s", f"{budget:g} s", cpu / budget, 1))
            rows.append(Row("its peak memory", peak, "GB", f"{MEMORY:g} GB", peak / MEMORY, 1))
    positions = max(1, int(POSITIONS * scale))
    for size, name in ORDERS:
        cpu, _ = _of_its_own("order", str(size), str(positions))
        rows.append(
            Row(
                f"order look-up, {name}",
                positions / cpu / 1e6,
                "M positions/s",
                "10 M/s",
                PER_SECOND * cpu / positions,
                1,
            )
        )
    return rows


def _of_its_own(*words: str | Path) -> tuple[float, float]:
    """CPU seconds and peak GB that this program prints when it is called with these words."""
    command = [sys.executable, __file__, *map(str, words)]
    cpu, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(cpu), float(peak)


def _verify(promised: Path, written: Path) -> float:
    precommit, data = Precommit.from_bytes(promised.read_bytes(), what="precommit"), written.read_bytes()
    began = time.process_time()
    chain = check_chain(read_transcript(data), precommit)
    cpu = time.process_time() - began
    assert not chain.problems, chain.problems[0]
    assert "torch" not in sys.modules
    return cpu


def _look_up(size: int, positions: int) -> float:
    """Whole epochs, one after the other, from no tables."""
    left, cpu, number = positions, 0.0, 0
    while left:
        order, count = Permutation(number.to_bytes(32, "little"), size), min(left, size)
        began = time.process_time()
        for start in range(0, count, 1 << 16):
            order.records(start, min(start + (1 << 16), count))
        cpu += time.process_time() - began
        left, number = left - count, number + 1
    return cpu


def main() -> None:
    """One measurement, for `transcript_rows`."""
    what, first, second = sys.argv[1:]
    seconds = _verify(Path(first), Path(second)) if what == "verify" else _look_up(int(first), int(second))
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    print(seconds, int(line.split()[1]) * 1024 / 1e9)


if __name__ == "__main__":
    main()
