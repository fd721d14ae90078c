"""Softmax regression on scikit-learn's digits, in exact integers; a verifier draws the steps that are proven.

    python zk_softmax.py [--out FOLDER] [--steps N] [--bend]

The setting of the literature on zero-knowledge proofs of training: logistic regression by SGD. The transcript commits
to every state and batch while the run goes on. Then the verifier draws steps, with a nonce that the developer could not
foresee: if one step in ten were forged, one of them would be drawn with probability 0.9. Those steps are proven, and an
auditor who was given the data replays their segments; the policy accepts steps that a verifier chose, and no others.

The same batches also train a float32 twin in PyTorch, to show how far the integers are from it. With `--bend` one byte
of one step proof is changed afterwards, and the same verification ends in DENY (exit code 1).

Shows: the drawn steps are exact steps between committed states. Does not show: anything about steps that were not
drawn, beyond the odds of the draw.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn, optim
from torch.nn.functional import cross_entropy
from zk_common import Story, accuracy, digits, identity, load, new_folder, told, verdict, write_records
from zk_finetune import BATCH, FIELDS, TEST, bend

from pot import begin, record
from pot.canonical import write_file
from pot.data.readers import RecordDataset
from pot.zk.engine import EzklEngine
from pot.zk.kit import commit_points, open_kit
from pot.zk.lower import start_state, step_program
from pot.zk.semantics.batches import batch_arrays
from pot.zk.trace import torch_batch
from pot.zk.training import ExactTrainer, float_safetensors, weights_of

STEPS = 187  # one epoch
RATE = 0.5
FORGED, DETECT = "0.1", "0.9"
PROGRAMS = ("zk_softmax.py", "zk_finetune.py", "zk_common.py")

POLICY = """\
version: pot/policy/v1
roles:
  developer:
{developer}
  auditor:
{auditor}
require:
  - claim: steps-proven
    level: audited
    verifier_chosen: true
coverage:
  forged: "{forged}"
  detect: "{detect}"
zk:
  circuits: ["{circuit}"]
  srs:
    - sha256: "{srs}"
      class: verifier
"""


def build_model() -> nn.Sequential:
    """Softmax regression, begun at zero."""
    model = nn.Sequential(nn.Linear(64, 10))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


def loss(model: Any, batch: dict[str, Any]) -> Any:
    """Cross-entropy, mean over the batch."""
    return cross_entropy(model(batch["image"].flatten(1)), batch["label"])


def prepare(story: Story) -> None:
    """Keys, records, their commitment, the step's program, and the verifier's circuit of it."""
    records = digits()
    write_records(story.path("train.jsonl"), records[:-TEST])
    write_records(story.path("test.jsonl"), records[-TEST:])
    story.run("pot zk secret --out secret.key")
    story.run("pot keygen developer.pem")
    story.run("pot keygen auditor.pem")
    story.run("pot data commit train.jsonl --view json/1 --out train.json")
    model = build_model()
    sgd = optim.SGD(model.parameters(), lr=RATE)
    label = f"softmax regression 64-10, cross-entropy, SGD {RATE}, batch {BATCH}"
    program = step_program(model, loss, sgd, FIELDS, records[:-TEST], batch=BATCH, limb_bits=10, label=label)
    write_file(story.path("program.json"), program.to_bytes())
    write_file(story.path("kit.json"), story.run("pot zk setup --program program.json --out kit --json").encode())


def train(steps: int) -> None:
    """The recorded program: exact steps, and a float32 twin that takes the same batches. Reads its own folder."""
    kit = open_kit(Path("kit"))
    program, secret = kit.program, Path("secret.key").read_bytes()
    config = {
        "program": program.label,
        "circuit_sha256": kit.circuit.sha256(),
        "batch_size": program.batch,
        "steps": steps,
        "checkpoint_every": 25,
    }
    begun = begin(
        "run",
        commitments=["train.json"],
        config=config,
        semantics="exact",
        inputs=["train.jsonl", "secret.key", *kit.files],
        secret_sha256=hashlib.sha256(secret).hexdigest(),
    )
    torch.manual_seed(begun.torch_seed("init"))  # part of the state that a replay compares
    twin = build_model()
    sgd = optim.SGD(twin.parameters(), lr=RATE)
    make_points = partial(commit_points, kit.verifying, engine=EzklEngine())
    trainer = ExactTrainer(program, start_state(program, twin), secret=secret, make_points=make_points)
    data = RecordDataset("train.jsonl")
    with record(begun, state=trainer, data=data) as run:
        for records in run.batches(data):
            value = loss(twin, torch_batch(FIELDS, records))
            sgd.zero_grad()
            value.backward()
            sgd.step()
            trainer.step(run.done + 1, batch_arrays(program, records))
            run.step()
    write_file(Path("model/model.safetensors"), float_safetensors(weights_of(program, trainer.state)))
    save_file(twin.state_dict(), "twin.safetensors")


def draw_and_prove(story: Story) -> list[str]:
    """The verifier draws steps; the developer proves them; the auditor replays their segments. Returns the steps."""
    story.run(f"pot challenge new run --unit step --forged {FORGED} --detect {DETECT} --out challenge.json")
    drawn: list[str] = json.loads(story.path("challenge.json").read_bytes())["chosen"]
    story.run("pot prove run --kit kit --data train.jsonl --secret secret.key --challenge challenge.json --out proofs")
    given = "--data train.jsonl --data secret.key --data kit --hide model"
    story.run(f"pot audit run --challenge challenge.json {given} --key auditor.pem --out audit.jsonl")
    return drawn


def certify(story: Story) -> None:
    """The developer's certificate, and the verifier's policy."""
    words = "--key developer.pem --kit kit --step-proofs proofs --secret secret.key --audit audit.jsonl"
    story.run(f"pot certify model --run run {words} --name digits-softmax")
    kit = json.loads(story.path("kit.json").read_bytes())
    people = {
        "developer": identity("Digits Lab", story.path("developer.pem.pub")),
        "auditor": identity("Independent Audit", story.path("auditor.pem.pub")),
    }
    odds = {"forged": FORGED, "detect": DETECT}
    text = POLICY.format(**people, **odds, circuit=kit["circuit_sha256"], srs=kit["srs_sha256"])
    story.path("policy.yaml").write_text(text, "utf-8")


def summary(story: Story, steps: int, drawn: list[str]) -> str:
    """Accuracies, drift, sizes, times."""
    exact = load(build_model(), story.path("model/model.safetensors"))
    twin = load(build_model(), story.path("twin.safetensors"))
    drift = max(float((a - b).abs().max()) for a, b in zip(exact.parameters(), twin.parameters(), strict=True))
    test = story.path("test.jsonl")
    size = sum(path.stat().st_size for path in story.path("proofs").glob("*.json")) / len(drawn)
    return (
        f"test accuracy: exact {accuracy(exact, test):.3f}, float32 on the same batches {accuracy(twin, test):.3f};"
        f" largest difference of a weight {drift:.4f}\n"
        f"{len(drawn)} of {steps} steps, drawn by the verifier, proven in {story.seconds['pot prove']:.0f} s,"
        f" {size / 1e3:.1f} kB each"
    )


def main() -> None:
    options = argparse.ArgumentParser(description="Softmax regression on digits; drawn steps are proven; verify.")
    options.add_argument("--out", default="zk-softmax", help="folder to make; with --bend it may be a finished one")
    options.add_argument("--steps", type=int, default=STEPS, help="steps to train")
    options.add_argument("--bend", action="store_true", help="change one byte of a step proof, then verify")
    options.add_argument("--train", action="store_true", help="only train, in the folder where all else is ready")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    if chosen.train:
        train(chosen.steps)
        return
    finished = chosen.bend and (Path(chosen.out) / "policy.yaml").exists()
    story = Story(Path(chosen.out).resolve() if finished else new_folder(chosen.out, PROGRAMS))
    if not finished:
        prepare(story)
        story.run(f"python zk_softmax.py --train --steps {chosen.steps}")
        drawn = draw_and_prove(story)
        certify(story)
        print(summary(story, chosen.steps, drawn))
    report = verdict(story, bend(story, "model", "step") if chosen.bend else "model")
    print(told(report, ["steps-proven"]))
    print(f"verified in {story.seconds['pot verify']:.1f} s; the report is {story.path('report.html')}")
    sys.exit({"PASS": 0, "DENY": 1}.get(report["verdict"], 3))


if __name__ == "__main__":
    main()
