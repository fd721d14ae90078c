"""A fine-tune of which every step is proven: from the parent's released weights to the released file, without data.

    python zk_finetune.py [--out FOLDER] [--steps N] [--frozen state|circuit|records] [--bend frozen|weights|step|...]

A network for scikit-learn's digits is trained in float32 on images of 0 to 7 and released. Its last layer is then
fine-tuned on images of all ten digits, in exact integers, and each step is proven in zero knowledge. The step is an
ordinary PyTorch module and loss; `pot.zk.lower` makes a program of integers of it. Where the frozen layer is:

- `state`: the proofs show that it is the parent's, that the step computes with it, and that it stays as it is;
- `circuit`: its numbers are constants of the circuit that the verifier made; the release holds it as the parent's does;
- `records`: it stands in front of the step, and the committed records hold its features beside the images. The recorded
  program makes them again, so that a replay sees a false one; the step proofs begin at the features.

The verifier makes circuit and reference string, trusts the developer's key for nothing but its name, and needs neither
data nor auditor. With `--bend` one thing of the release is changed afterwards, and the same verification ends in DENY
(exit code 1); a folder that an earlier call made is used again.

Shows: the released weights are what N exact steps make of the parent's. Does not show: which records the steps read
(`zk_exclusion.py`), or how the parent came about beyond its own certificate.
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
from safetensors.torch import load_file, save
from torch import nn, optim
from torch.nn.functional import cross_entropy
from zk_common import (
    Forger,
    Story,
    accuracy,
    digits,
    identity,
    load,
    new_folder,
    read_records,
    told,
    verdict,
    write_records,
)

from pot import begin, record
from pot.canonical import write_file
from pot.data.readers import RecordDataset
from pot.recording.precommit import Parent
from pot.zk.engine import EzklEngine
from pot.zk.kit import commit_points, open_kit
from pot.zk.lower import step_program
from pot.zk.semantics.batches import batch_arrays
from pot.zk.trace import Field
from pot.zk.training import ExactTrainer, from_release

STEPS = 50
BATCH = 8
RATE = 2.0
FIELDS = {"image": Field("unsigned", (8, 8), bits=4, width=5), "label": Field("marks", (10,))}
FEATURES = {"features": Field("unsigned", (32,), bits=5, width=9), "label": Field("marks", (10,))}
HEAD = ("2.weight", "2.bias")
FROZEN = ("state", "circuit", "records")
KNOWN = 8  # the parent sees the digits 0 to 7 only
TEST = 300
BENDS = ("frozen", "weights", "step", "batch", "claim")
READS = ("tune.jsonl", "parent/model.safetensors", "parent.json", "secret.key")
PROGRAMS = ("zk_finetune.py", "zk_common.py", "train_digits.py")

POLICY = """\
version: pot/policy/v1
roles:
  developer:
{developer}
require:
  - claim: steps-proven
    level: proved
    every_step: true
{more}zk:
  circuits: ["{circuit}"]
  srs:
    - sha256: "{srs}"
      class: verifier
"""


def build_model() -> nn.Sequential:
    """The network of train_digits.py."""
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def loss(model: Any, batch: dict[str, Any]) -> Any:
    """Cross-entropy; no gradient reaches the first layer."""
    known = batch["features"] if "features" in batch else model[1](model[0](batch["image"].flatten(1))).detach()
    return cross_entropy(model[2](known), batch["label"])


def features(model: nn.Sequential, record: dict[str, Any]) -> list[int]:
    """What the frozen layer makes of an image, as integers / 2^5; in float64, so that no machine rounds otherwise."""
    image = torch.tensor(record["image"], dtype=torch.float64).flatten() / 16
    hidden = torch.relu(model[0].weight.double() @ image + model[0].bias.double()).mul(1 << 5).round()
    return [min(int(value), (1 << 9) - 1) for value in hidden.tolist()]


def check_features(model: nn.Sequential, records: list[dict[str, Any]]) -> None:
    """Whether features that records hold are the frozen layer's: so a replay finds false ones."""
    if any("features" in item and item["features"] != features(model, item) for item in records):
        sys.exit("a record's features are not what the frozen layer makes of its image")


def seen(model: nn.Sequential, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records with their features."""
    return [{**record, "features": features(model, record)} for record in records]


def prepare(story: Story, old: list[dict[str, Any]]) -> None:
    """Keys and the parent's records; whole records are committed, so that every field is bound."""
    write_records(story.path("test.jsonl"), digits()[-TEST:])
    write_records(story.path("old.jsonl"), [item for item in old if item["label"] < KNOWN])
    story.run("pot zk secret --out secret.key")
    story.run("pot keygen developer.pem")
    story.run("pot data commit old.jsonl --view json/1 --out old.json")


def gather(story: Story, records: list[dict[str, Any]], frozen: str = FROZEN[0]) -> None:
    """The records to fine-tune on, committed, with the features that the frozen layer makes of them if it is apart."""
    model = load(build_model(), story.path("parent/model.safetensors"))
    write_records(story.path("tune.jsonl"), seen(model, records) if frozen == "records" else records)
    story.run("pot data commit tune.jsonl --view json/1 --out tune.json")


def pretrain(story: Story) -> None:
    """The parent: trained in float32, recorded, certified."""
    words = "--data old.jsonl --commitment old.json --run run-parent --out parent --steps 300"
    story.run(f"python train_digits.py {words}")
    made = story.run("pot certify parent --run run-parent --key developer.pem --name digits-0-to-7 --json")
    write_file(story.path("parent.json"), made.encode())


def make_circuit(story: Story, frozen: str = FROZEN[0]) -> None:
    """The developer lowers the step; the verifier makes its circuit, under a reference string of his own."""
    model = load(build_model(), story.path("parent/model.safetensors"))
    examples = [*read_records(story.path("tune.jsonl")), *digits()[: STEPS * BATCH]][: STEPS * BATCH]
    if frozen == "records":
        examples = seen(model, examples)
    sgd = optim.SGD(model.parameters(), lr=RATE)
    label = f"last layer of 64-32-10, cross-entropy, SGD {RATE}, batch {BATCH}"
    fields, trained = (FEATURES if frozen == "records" else FIELDS), (None if frozen == "state" else HEAD)
    program = step_program(
        model, loss, sgd, fields, examples, batch=BATCH, limb_bits=10, label=label, trainable=trained
    )
    write_file(story.path("program.json"), program.to_bytes())
    write_file(story.path("kit.json"), story.run("pot zk setup --program program.json --out kit --json").encode())


def write_policy(story: Story, more: str = "") -> None:
    """The verifier's: whose name counts, what must be shown, under which circuit and whose reference string."""
    kit = json.loads(story.path("kit.json").read_bytes())
    developer = identity("Digits Lab", story.path("developer.pem.pub"))
    text = POLICY.format(developer=developer, more=more, circuit=kit["circuit_sha256"], srs=kit["srs_sha256"])
    story.path("policy.yaml").write_text(text, "utf-8")


def fine_tune(folder: Path, steps: int) -> None:
    """The recorded program: exact steps from the parent's weights."""
    kit = open_kit(folder / "kit")
    program, secret = kit.program, (folder / "secret.key").read_bytes()
    parent = json.loads((folder / "parent.json").read_bytes())  # printed by pot certify --json
    begun = begin(
        folder / "run",
        commitments=[folder / "tune.json"],
        config={
            "program": program.label,
            "circuit_sha256": kit.circuit.sha256(),
            "batch_size": program.batch,
            "steps": steps,
            "checkpoint_every": max(1, steps // 4),
        },
        semantics="exact",
        inputs=[*(folder / name for name in READS), *kit.files],
        parent=Parent(operation="quantise/1", **parent),
        secret_sha256=hashlib.sha256(secret).hexdigest(),
    )
    torch.manual_seed(begun.torch_seed("init"))
    released = (folder / "parent/model.safetensors").read_bytes()
    start, frozen = from_release(program, released, what="the parent's weights")
    make_points = partial(commit_points, kit.verifying, engine=EzklEngine())
    trainer = ExactTrainer(program, start, frozen=frozen, secret=secret, make_points=make_points)
    model = load(build_model(), folder / "parent/model.safetensors")
    data = RecordDataset(folder / "tune.jsonl")
    with record(begun, state=trainer, data=data) as run:
        for records in run.batches(data):
            check_features(model, records)
            trainer.step(run.done + 1, batch_arrays(program, records))
            run.step()
    write_file(folder / "release/model.safetensors", trainer.released())


def train_and_prove(story: Story, steps: int) -> None:
    """The developer's part: fine-tune, then prove every step; a second call goes on where the first was stopped."""
    story.run(f"python zk_finetune.py --train --steps {steps}")
    story.run(f"pot prove run --kit kit --data tune.jsonl --secret secret.key --steps 1-{steps} --out proofs")


def certify(story: Story, more: str = "", *, expect: int = 0) -> None:
    """The certificate, with both ends of the run opened: they are the two files of weights, which are public."""
    words = "--key developer.pem --parent parent --kit kit --step-proofs proofs --secret secret.key --name digits-tuned"
    story.run(f"pot certify release --run run {words}{more}", expect=[expect])


def bend(story: Story, model: str, what: str) -> str:
    """A forged copy of the release; what is written anew has the developer's own good signature."""
    forger = Forger(story.path(model), story.path(f"bent-{what}"), story.path("developer.pem"))
    claim = forger.claim("steps-proven")
    one, other = claim["steps"][0], claim["steps"][-1]
    if what == "weights":
        forger.weight()
        return forger.folder.name
    if what == "frozen":
        held = load_file(str(forger.folder / "model.safetensors"))
        held["0.bias"][0] += 0.5
        forger.release(save(held))
        forger.sign_again()
        return forger.folder.name
    if what == "step":
        one["proof_sha256"] = forger.bend_object(one["proof_sha256"], _other_byte)
    elif what == "batch":
        point = json.loads(story.path(f"proofs/step-{int(other['step']):06d}.json").read_bytes())["points"]["batch"]
        one["proof_sha256"] = forger.bend_object(one["proof_sha256"], lambda proof: proof["points"].update(batch=point))
    else:
        one["proof_sha256"], other["proof_sha256"] = other["proof_sha256"], one["proof_sha256"]
    forger.sign_again()
    return forger.folder.name


def _other_byte(proof: dict[str, Any]) -> None:
    """One bit in the last byte of the proof system's part."""
    data = bytearray.fromhex(proof["proofs"][0])
    data[-1] ^= 1
    proof["proofs"][0] = data.hex()


def summary(story: Story) -> str:
    """What the story came to: accuracies, sizes, times."""
    proofs = sorted(story.path("proofs").glob("*.json"))
    before, after = (
        accuracy(load(build_model(), story.path(f"{name}/model.safetensors")), story.path("test.jsonl"))
        for name in ("parent", "release")
    )
    lines = [f"test accuracy on ten digits: parent {before:.3f}, fine-tuned {after:.3f}"]
    size = sum(path.stat().st_size for path in proofs)
    lines.append(
        f"{len(proofs)} of {len(proofs)} steps proven in {story.seconds['pot prove']:.0f} s, {size / 1e3:.0f} kB"
    )
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description="Fine-tune digits with every step proven; certify; verify.")
    options.add_argument("--out", default="zk-finetune", help="folder to make; with --bend it may be a finished one")
    options.add_argument("--steps", type=int, default=STEPS, help="steps to fine-tune and prove")
    options.add_argument("--frozen", choices=FROZEN, default=FROZEN[0], help="where the layer is that is not trained")
    options.add_argument("--bend", choices=BENDS, help="change one thing of the release, then verify it")
    options.add_argument("--train", action="store_true", help="only fine-tune, in the folder where all else is ready")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    if chosen.train:
        fine_tune(Path(), chosen.steps)
        return
    finished = chosen.bend and (Path(chosen.out) / "policy.yaml").exists()
    story = Story(Path(chosen.out).resolve() if finished else new_folder(chosen.out, PROGRAMS))
    if not finished:
        records = digits()
        prepare(story, records[:750])
        pretrain(story)
        gather(story, records[750:-TEST][: chosen.steps * BATCH], chosen.frozen)
        make_circuit(story, chosen.frozen)
        train_and_prove(story, chosen.steps)
        certify(story)
        write_policy(story)
        print(summary(story))
    report = verdict(story, bend(story, "release", chosen.bend) if chosen.bend else "release")
    print(told(report, ["steps-proven"]))
    print(f"verified in {story.seconds['pot verify']:.1f} s; the report is {story.path('report.html')}")
    sys.exit({"PASS": 0, "DENY": 1}.get(report["verdict"], 3))


if __name__ == "__main__":
    main()
