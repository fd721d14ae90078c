"""Fine-tune a released digit classifier in exact integers, so that every step can be proven in zero knowledge.

    python finetune_digits.py --parent parent/model.safetensors --data fine-tune.jsonl --commitment fine-tune.json \\
        --kit kit --secret secret.key --run run --out model

The float weights are put on the integer grid (`quantise/1`), trained by exact SGD steps, and taken back
(`dequantise/1`); verification recomputes both. `--kit` is the circuit that a verifier made with `pot zk setup`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import load

from pot.data.readers import RecordDataset
from pot.recording.begin import begin
from pot.recording.precommit import Parent
from pot.recording.recorder import record
from pot.zk.engine import EzklEngine
from pot.zk.kit import commit_points, open_kit
from pot.zk.semantics.batches import batch_arrays
from pot.zk.training import ExactTrainer, float_safetensors, squared_error, weights_from_float, weights_of


def accuracy(weights: bytes, test: RecordDataset) -> float:
    """How many of the test's digits the released float weights tell."""
    w = load(weights)
    images = np.array([test[at]["image"] for at in range(len(test))], np.float32).reshape(len(test), -1) / 16
    hidden = np.maximum(images @ w["0.weight"].T + w["0.bias"], 0)
    found = (hidden @ w["2.weight"].T + w["2.bias"]).argmax(axis=1)
    return float((found == [test[at]["label"] for at in range(len(test))]).mean())


def main() -> None:
    options = argparse.ArgumentParser(description="Fine-tune a digit classifier in exact integers and record it.")
    options.add_argument("--parent", required=True, help="model.safetensors of the parent's release")
    options.add_argument("--parent-certificate", required=True, help="JSON with certificate_sha256 and model_sha256")
    options.add_argument("--data", required=True, help="JSON lines to train on")
    options.add_argument("--commitment", required=True, help="their commitment, made by 'pot data commit'")
    options.add_argument("--kit", required=True, help="folder of the circuit, made by 'pot zk setup'")
    options.add_argument("--secret", required=True, help="file of 32 bytes that blind the committed states and batches")
    options.add_argument("--run", required=True, help="run directory to write")
    options.add_argument("--out", required=True, help="folder for model.safetensors")
    options.add_argument("--steps", type=int, default=24)
    options.add_argument("--checkpoint-every", type=int, default=6)
    options.add_argument("--nonce", default="self", help="'self', or 'verifier' to wait for one")
    options.add_argument("--test", help="JSON lines to measure the accuracy on")
    chosen = options.parse_args()

    kit = open_kit(Path(chosen.kit))
    program = kit.program
    secret = Path(chosen.secret).read_bytes()
    parent = json.loads(Path(chosen.parent_certificate).read_text(encoding="utf-8"))
    config = {
        "program": program.label,
        "program_sha256": program.sha256(),
        "circuit_sha256": kit.circuit.sha256(),
        "batch_size": program.batch,
        "steps": chosen.steps,
        "checkpoint_every": chosen.checkpoint_every,
    }
    begun = begin(
        chosen.run,
        commitments=[chosen.commitment],
        config=config,
        semantics="exact",
        nonce=chosen.nonce,
        inputs=[chosen.data, chosen.parent, chosen.parent_certificate, chosen.secret, *map(str, kit.files)],
        parent=Parent(operation="quantise/1", **parent),
        secret_sha256=hashlib.sha256(secret).hexdigest(),
    )
    start = weights_from_float(program, Path(chosen.parent).read_bytes(), what=chosen.parent)
    make_points = partial(commit_points, kit.verifying, engine=EzklEngine())
    trainer = ExactTrainer(program, start, secret=secret, make_points=make_points, loss=squared_error(program))
    data = RecordDataset(chosen.data)

    with record(begun, state=trainer, data=data) as run:
        for records in run.batches(data):
            run.step(loss=trainer.step(run.done + 1, batch_arrays(program, records)))

    out = Path(chosen.out)
    out.mkdir(parents=True, exist_ok=True)
    released = float_safetensors(weights_of(program, trainer.state))
    (out / "model.safetensors").write_bytes(released)
    print(f"{run.done} exact steps, model in {chosen.out}/model.safetensors")
    if chosen.test:
        print(f"test accuracy {accuracy(released, RecordDataset(chosen.test)):.4f}")


if __name__ == "__main__":
    main()
