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
from pathlib import Path

from pot.data.readers import RecordDataset
from pot.recording.begin import begin
from pot.recording.precommit import Parent
from pot.recording.recorder import record
from pot.zk.engine import EzklEngine
from pot.zk.exact import logits
from pot.zk.kit import commit_vectors, open_kit
from pot.zk.rewind import features_and_labels
from pot.zk.training import ExactTrainer, float_safetensors, weights_from_float

KIT_FILES = ("circuit.json", "settings.json", "vk", "srs")


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

    kit = open_kit(Path(chosen.kit)).verifying
    spec = kit.circuit.spec
    secret = Path(chosen.secret).read_bytes()
    parent = json.loads(Path(chosen.parent_certificate).read_text(encoding="utf-8"))
    config = {
        "model": f"mlp {spec.inputs}-{spec.hidden}-{spec.outputs} relu",
        "optimizer": "exact sgd",
        "loss": "half squared error",
        "learning_rate": f"2^-{spec.rate_shift}",
        "circuit_sha256": kit.circuit.sha256(),
        "batch_size": spec.batch,
        "steps": chosen.steps,
        "checkpoint_every": chosen.checkpoint_every,
    }
    begun = begin(
        chosen.run,
        commitments=[chosen.commitment],
        config=config,
        semantics="exact",
        nonce=chosen.nonce,
        inputs=[
            chosen.data, chosen.parent, chosen.parent_certificate, chosen.secret,
            *(str(Path(chosen.kit) / name) for name in KIT_FILES),
        ],
        parent=Parent(operation="quantise/1", **parent),
        secret_sha256=hashlib.sha256(secret).hexdigest(),
    )  # fmt: skip
    engine = EzklEngine()
    start = weights_from_float(Path(chosen.parent).read_bytes(), what=chosen.parent)
    trainer = ExactTrainer(spec, start, secret=secret, make_points=lambda vectors: commit_vectors(kit, vectors, engine))
    data = RecordDataset(chosen.data)

    with record(begun, state=trainer, data=data) as run:
        for batch in run.batches(data):
            features, labels = features_and_labels(spec, batch)
            run.step(loss=trainer.step(run.done + 1, features, labels))

    out = Path(chosen.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.safetensors").write_bytes(float_safetensors(trainer.weights))
    print(f"{run.done} exact steps, model in {chosen.out}/model.safetensors")
    if chosen.test:
        test = RecordDataset(chosen.test)
        features, labels = features_and_labels(spec, [test[index] for index in range(len(test))])
        right = (logits(spec, trainer.weights, features).argmax(axis=1) == labels).mean()
        print(f"test accuracy {right:.4f}")


if __name__ == "__main__":
    main()
