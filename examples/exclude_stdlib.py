"""A code model that was not trained on asyncio, and the certificate that shows it.

    python exclude_stdlib.py [--out FOLDER] [--steps N]

The training data is the running Python's standard library, each function a record, without asyncio's. Copies travel:
some functions elsewhere share a run of code with asyncio's. They are found and dropped; then a small model is trained
on what is left, audited, certified and verified: no training record has 50 bytes of normalised text in common with a
function of asyncio. Every command that is run is shown; a user would type the same.
"""

from __future__ import annotations

import argparse
import ast
import json
import shlex
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
POT = str(Path(sys.executable).with_name("pot"))
LIBRARY = Path(sysconfig.get_paths()["stdlib"])
EXCLUDED = "asyncio"
LEFT_ASIDE = {"test", "tests", "idlelib", "lib2to3", "site-packages", "__pycache__", "turtledemo", "ensurepip"}
VIEW = "winnow50/1"

POLICY = """\
version: pot/policy/v1
roles:
  developer:
    - name: Code Lab
      public_key: |
{developer}
  auditor:
    - name: Independent Audit
      public_key: |
{auditor}
require:
  - claim: training-provenance
    level: audited
  - claim: dataset-exclusion
    level: audited
    exclusion:
      view: {view}
      records: {records}
      root_blake3: "{root}"
coverage:
  forged: "0.3"
  detect: "0.5"
"""


def functions(library: Path) -> Iterator[tuple[str, str]]:
    """(module, source) of every function of the library, in the order of the files."""
    for path in sorted(library.rglob("*.py")):
        place = path.relative_to(library)
        if LEFT_ASIDE & set(place.parts[:-1]):
            continue
        source = path.read_text("utf-8", "replace")
        try:
            tree = ast.parse(source)
        except SyntaxError:  # the library holds templates that are no Python
            continue
        lines = source.splitlines()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield place.as_posix(), textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno])) + "\n"


class Story:
    """Runs commands in one folder, shows them, and stops where one ends otherwise than expected."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, words: str, *, expect: int = 0) -> str:
        """A command; returns its standard output."""
        print(f"$ {words}", flush=True)
        ended = subprocess.run(self._words(words), cwd=self.folder, capture_output=True, text=True, check=False)
        if ended.returncode != expect:
            sys.exit(f"{words}: exit code {ended.returncode}, expected {expect}\n{ended.stdout}{ended.stderr}")
        return ended.stdout

    def begin(self, words: str) -> subprocess.Popen[str]:
        """A command that goes on in the background."""
        print(f"$ {words} &", flush=True)
        return subprocess.Popen(self._words(words), cwd=self.folder, text=True)

    def write_records(self, name: str, records: list[tuple[str, str]]) -> None:
        """JSON lines of {"source", "text"}."""
        lines = [json.dumps({"source": source, "text": text}) + "\n" for source, text in records]
        (self.folder / name).write_text("".join(lines), "utf-8")

    def _words(self, words: str) -> list[str]:
        first, *rest = shlex.split(words)
        return [*{"pot": [POT], "python": [sys.executable]}[first], *rest]


def prepare(story: Story) -> None:
    """The corpus without asyncio, X = asyncio's functions, and the training records without what they share with X."""
    corpus = list(functions(LIBRARY))
    excluded = [item for item in corpus if item[0].split("/")[0] == EXCLUDED]
    kept = [item for item in corpus if item[0].split("/")[0] != EXCLUDED]
    print(f"{len(kept)} functions to train on, {len(excluded)} of {EXCLUDED} to exclude")
    story.write_records("x.jsonl", excluded)
    story.run(f"pot data commit x.jsonl --view {VIEW} --out x.json --as-exclusion")
    story.write_records("train.jsonl", kept)
    story.run(f"pot data commit train.jsonl --view {VIEW} --out train-{VIEW[:8]}.json")
    words = f"pot data exclude train-{VIEW[:8]}.json x.json --out x.exclusion --list-training --json"
    found = json.loads(story.run(words, expect=1))
    shared = {int(index) for index in found["training_indices"]}
    print(f"{len(shared)} of them share a run of 50 bytes with {EXCLUDED} and are dropped, among them:")
    for index in sorted(shared)[:5]:
        module, text = kept[index]
        print(f"  {module}: {text.strip().splitlines()[0][:80]}")
    story.write_records("train.jsonl", [item for index, item in enumerate(kept) if index not in shared])


def commit(story: Story) -> None:
    """The records' commitment, which the run refers to, and one under the view that tells shared runs."""
    story.run("pot data commit train.jsonl --view text/1 --out train.json")
    story.run(f"pot data commit train.jsonl --view {VIEW} --out train-{VIEW[:8]}.json")
    print(story.run(f"pot data exclude train-{VIEW[:8]}.json x.json --out x.exclusion"), end="")


def train(story: Story, steps: int) -> None:
    """The recorded run, with a nonce that the auditor gives after the pre-commitment."""
    for key in ("developer.pem", "auditor.pem"):
        story.run(f"pot keygen {key}")
    words = "--data train.jsonl --commitment train.json --run run --out model --nonce verifier"
    training = story.begin(f"python train_text.py {words} --steps {steps}")
    while not (story.folder / "run" / "precommit.json").exists():
        if training.poll() is not None:
            sys.exit("the training ended before it began")
        time.sleep(0.05)
    story.run("pot challenge seed run/precommit.json --out run/nonce.json")
    shutil.copy(story.folder / "run" / "nonce.json", story.folder / "auditor-nonce.json")
    if training.wait() != 0:
        sys.exit("the training failed")


def audit(story: Story) -> None:
    """The auditor replays drawn segments, and makes the second commitment again from the data."""
    story.run("pot challenge new run --forged 0.3 --detect 0.5 --out challenge.json")
    words = "--data train.jsonl --code . --key auditor.pem --seed-nonce auditor-nonce.json --hide model"
    print(story.run(f"pot audit run --challenge challenge.json {words} --out audit.jsonl"), end="")
    print(
        story.run(f"pot audit data train-{VIEW[:8]}.json --data train.jsonl --key auditor.pem --out audit-data.jsonl"),
        end="",
    )


def certify_and_verify(story: Story) -> None:
    """The developer's certificate, the regulator's policy and verdict."""
    story.run(
        "pot certify model --run run --key developer.pem --name code-model --exclude x.exclusion --commitment ."
        " --audit audit.jsonl --audit audit-data.jsonl"
    )
    x = json.loads((story.folder / "x.json").read_text("utf-8"))
    keys = {
        name: textwrap.indent((story.folder / f"{name}.pem.pub").read_text("utf-8").strip(), " " * 8)
        for name in ("developer", "auditor")
    }
    records, root = x["records"]["count"], x["records"]["root_blake3"]
    policy = POLICY.format(**keys, view=VIEW, records=records, root=root)
    (story.folder / "policy.yaml").write_text(policy, "utf-8")
    print(story.run("pot verify model --policy policy.yaml --offline --report report.html"), end="")


def main() -> None:
    options = argparse.ArgumentParser(description="A code model without asyncio, certified and verified.")
    options.add_argument("--out", default="exclude-stdlib", help="folder to make; must not exist")
    options.add_argument("--steps", type=int, default=300, help="steps to train")
    chosen = options.parse_args()
    folder = Path(chosen.out).resolve()
    if folder.exists():
        sys.exit(f"{folder}: exists already; name another folder with --out")
    folder.mkdir(parents=True)
    shutil.copy(HERE / "train_text.py", folder)
    story = Story(folder)
    prepare(story)
    commit(story)
    train(story, chosen.steps)
    audit(story)
    certify_and_verify(story)
    print(f"report: {folder / 'report.html'}")


if __name__ == "__main__":
    main()
