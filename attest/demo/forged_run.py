"""A forged run: the last segment ends elsewhere than training led, and every digest is made to fit.

This is the forgery that no check of the transcript alone can see: the chain is unbroken, the released weights are its
end. Only who repeats the segment, or demands proofs of its steps, finds out.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from attest.bundle import WEIGHTS_FILE
from attest.demo.forgeries import relink
from pot.canonical import parse, read_file, sha256_hex, write_file
from pot.commitments.state import entries_from_safetensors, state_digest, tensors_digest
from pot.recording.begin import PRECOMMIT_FILE
from pot.recording.precommit import MAX_PRECOMMIT_BYTES, Precommit
from pot.recording.state import checkpoint_name
from pot.recording.transcript import TRANSCRIPT_FILE

__all__ = ["forge_last_segment"]


def forge_last_segment(run: Path, to: Path, release: Path) -> Path:
    """Copy the exact run to `to`, move one output bias in its last state; the model that follows goes to `release`."""
    from pot.zk.training import float_safetensors, integer_safetensors, weights_from_integers

    shutil.copytree(run, to)
    precommit = Precommit.from_bytes(read_file(to / PRECOMMIT_FILE, limit=MAX_PRECOMMIT_BYTES), what=PRECOMMIT_FILE)
    place = to / checkpoint_name(int(precommit.steps)) / WEIGHTS_FILE
    weights = weights_from_integers(place.read_bytes(), what=str(place))
    weights["2.bias"][0] += 1 << 20  # 0.004: prefers one digit a little, as a backdoor would
    forged = integer_safetensors(weights)
    write_file(place, forged)
    events = [parse(line, what=TRANSCRIPT_FILE) for line in (to / TRANSCRIPT_FILE).read_bytes().splitlines()]
    write_file(to / TRANSCRIPT_FILE, relink(_with_end(events, precommit, forged)))
    write_file(release / WEIGHTS_FILE, float_safetensors(weights))
    return to


def _with_end(events: list[dict[str, Any]], precommit: Precommit, weights: bytes) -> list[dict[str, Any]]:
    """The events with a last checkpoint and an end that fit the forged weights."""
    bent: list[dict[str, Any]] = json.loads(json.dumps(events))
    checkpoint, end = bent[-2], bent[-1]
    checkpoint["components"]["model"] = tensors_digest("model", entries_from_safetensors(weights))
    for file in checkpoint["files"]:
        if file["path"].endswith(WEIGHTS_FILE):
            file["sha256"], file["bytes"] = sha256_hex(weights), str(len(weights))
    checkpoint["state_blake3"] = state_digest(
        checkpoint["components"], int(precommit.steps), precommit.config_blake3, checkpoint["previous_state_blake3"]
    )
    end["state_blake3"], end["model_blake3"] = checkpoint["state_blake3"], checkpoint["components"]["model"]
    return bent
