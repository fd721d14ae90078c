"""A fine-tune of which every step is proven, and none of whose steps read a record of X.

    python zk_exclusion.py [--out FOLDER] [--steps N] [--bend]

The story of `zk_finetune.py` with one demand more: 150 images, X, were withdrawn, and the released model must not have
been fine-tuned on any of them. The developer opens the batch of every proven step: its records stand in the committed
data where seed and order put them, give the very batch that the step proof is about, and are none of X. So that no step
read a record of X is `proved`, without auditor. The price: whoever has the release can read the records.

With `--bend` one record of X is among the data, and a step reads it. `pot certify` refuses to claim otherwise; a
developer who writes the claim himself, and signs it, gets DENY (exit code 1).

Shows: no step of this run read an image of X. Does not show: that X's images were not changed by a pixel first, or what
the parent was trained on (an exclusion of its whole data set, `pot data exclude`, shows that).
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import torch
from zk_common import Forger, Story, digits, new_folder, told, verdict, write_records
from zk_finetune import (
    BATCH,
    PROGRAMS,
    STEPS,
    TEST,
    certify,
    gather,
    make_circuit,
    prepare,
    pretrain,
    summary,
    train_and_prove,
    write_policy,
)

PARENT = 750  # images for the parent
WITHDRAWN = 150

REQUIREMENT = """\
  - claim: step-exclusion
    level: proved
    every_step: true
    exclusion:
      view: {view}
      records: {records}
      root_blake3: "{root}"
"""


def commit_x(story: Story, name: str, records: list[dict[str, Any]]) -> None:
    """A set to be excluded: its images alone are compared, whatever label they carry."""
    write_records(story.path(f"{name}.jsonl"), records)
    story.run(f"pot data commit {name}.jsonl --view pixels/1 --as-exclusion --out {name}.json")


def requirement(story: Story) -> str:
    """The verifier's demand: this X and no other."""
    x = json.loads(story.path("x.json").read_bytes())
    return REQUIREMENT.format(view=x["view"], records=x["records"]["count"], root=x["records"]["root_blake3"])


def certify_a_lie(story: Story, x: list[dict[str, Any]]) -> str:
    """What is left to a developer whose run read X: open all batches truly, claim X's absence, sign it himself."""
    certify(story, " --step-exclude x.json --records tune.jsonl", expect=1)
    commit_x(story, "shorter", x[1:])  # a claim that holds, in whose place the lie is put
    certify(story, " --step-exclude shorter.json --records tune.jsonl")
    forger = Forger(story.path("release"), story.path("bent"), story.path("developer.pem"))
    claim = forger.claim("step-exclusion")
    claim["exclusion_sha256"] = forger.add(story.path("x.json").read_bytes())
    claim["digests_sha256"] = forger.add(story.path("x.digests").read_bytes())
    forger.sign_again()
    return forger.folder.name


def main() -> None:
    options = argparse.ArgumentParser(description="Fine-tune digits without X, every step proven and opened; verify.")
    options.add_argument("--out", default="zk-exclusion", help="folder to make; must not exist")
    options.add_argument("--steps", type=int, default=STEPS, help=f"steps to fine-tune and prove, up to {STEPS}")
    options.add_argument("--bend", action="store_true", help="let one step read one record of X")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    records = digits()
    x, clean = records[PARENT : PARENT + WITHDRAWN], records[PARENT + WITHDRAWN : -TEST]
    story = Story(new_folder(chosen.out, PROGRAMS))
    read = clean[: chosen.steps * BATCH]  # each of them once
    if chosen.bend:
        read[0] = x[0]
    prepare(story, records[:PARENT])
    pretrain(story)
    gather(story, read)
    commit_x(story, "x", x)
    make_circuit(story)
    train_and_prove(story, chosen.steps)
    model = "release"
    if chosen.bend:
        model = certify_a_lie(story, x)
    else:
        certify(story, " --step-exclude x.json --records tune.jsonl")
        print(summary(story))
    write_policy(story, requirement(story))
    report = verdict(story, model)
    print(told(report, ["steps-proven", "step-exclusion"]))
    print(f"verified in {story.seconds['pot verify']:.1f} s; the report is {story.path('report.html')}")
    sys.exit({"PASS": 0, "DENY": 1}.get(report["verdict"], 3))


if __name__ == "__main__":
    main()
