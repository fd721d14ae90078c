"""The story of `pot demo`: developer, auditor, fine-tuner and regulator, one after the other, with the real commands.

Everything lies in one folder that stays; each command is printed as a user would type it there. The stages follow the
order in which a release comes to be: commit, train, audit, exclude, certify and fine-tune, verify and forge.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from attest.demo.digits import OVERLAP, write_digits
from attest.demo.forged_run import forge_last_segment
from attest.demo.forgeries import copy_release, file_forgeries
from attest.demo.policies import child_policy, parent_policy
from attest.demo.programs import FINE_TUNE_PROGRAM, TRAIN_PROGRAM, copy_programs
from attest.demo.teller import Teller
from attest.trust.keys import PrivateKey
from pot.canonical import parse, write_file
from pot.errors import EnvironmentFailure, PotError

__all__ = ["FULL", "QUICK", "Scale", "Story"]

_WAIT_SECONDS: Final = 120.0  # for a program's first file; importing torch from a cold disk takes longest
_KILL_AFTER_LINES: Final = 200  # of the transcript: less than a third of the training
_ACCURACY: Final = 0.97
_EVERYTHING: Final = ("0.01", "1")  # one forged unit in a hundred, met for certain: every unit of a short run

_TRAIN: Final = (
    f"{TRAIN_PROGRAM} --data data/train.jsonl --commitment commitments/train.json --run run-parent --out parent"
    " --nonce verifier --test data/test.jsonl"
)
_FINE_TUNE: Final = (
    f"{FINE_TUNE_PROGRAM} --parent parent/model.safetensors --parent-certificate parent.json"
    " --data data/fine-tune.jsonl --commitment commitments/fine-tune.json --kit kit --secret secret.key"
    " --run run-child --out release --nonce verifier --test data/test.jsonl"
)
_PARENT_INPUTS: Final = "--data data/train.jsonl --hide parent"
_CHILD_INPUTS: Final = (
    "--data data/fine-tune.jsonl --data parent/model.safetensors --data parent.json --data secret.key --data kit"
)
_CERTIFY_CHILD: Final = (
    "--key keys/tuner.pem --name digits-mlp-tuned --parent parent --exclude evidence/fine-tune-x1"
    " --commitment commitments"
)


@dataclass(frozen=True)
class Scale:
    """How much is audited and proven: shares of forged units, and the probability to meet one. Training is the same."""

    parent_forged: str
    parent_detect: str
    child_steps: int
    step_forged: str
    step_detect: str


QUICK: Final = Scale("0.5", "0.5", child_steps=12, step_forged="0.05", step_detect="0.05")
FULL: Final = Scale("0.2", "0.95", child_steps=48, step_forged="0.25", step_detect="0.8")


@dataclass
class Story:
    """One telling: the voice and the scale. `tell` runs all stages and returns the path of the report."""

    voice: Teller
    scale: Scale
    kit: dict[str, str] = field(default_factory=dict)
    """Digests of the circuit and the SRS that the verifier made."""

    @property
    def folder(self) -> Path:
        """Where everything lies."""
        return self.voice.folder

    def tell(self) -> Path:
        """Run every stage. Raises `PotError` where something ends in another way than the story says."""
        self.voice.line("in the background, the verifier makes a circuit and a reference string for the fine-tuner:")
        setup = self.voice.start_pot("zk setup --out kit --json")
        self.commit()
        self.train()
        self.audit_parent()
        self.exclude()
        self.certify_parent()
        self.kit = json.loads(self.voice.finish(setup, "pot zk setup").out)
        self.fine_tune()
        self.audit_and_prove_child()
        self.verify()
        self.forge()
        return self.folder / "report.html"

    def commit(self) -> None:
        """Stage 1: keys, data, commitments to the training records and to both exclusion sets."""
        self.voice.heading(1, "Commit the data: the training records, and two sets X")
        write_digits(self.folder / "data")
        copy_programs(self.folder)
        for key in ("developer.pem", "tuner.pem", "auditor.pem --algorithm ecdsa-p256"):
            self.voice.pot(f"keygen keys/{key}")
        rows: list[tuple[str, ...]] = [("set", "records", "root of the ordered tree")]
        for name, role in (("train", ""), ("fine-tune", ""), ("x1", " --as-exclusion"), ("x2", " --as-exclusion")):
            out = f"commitments/{name}.json"
            self.voice.pot(f"data commit data/{name}.jsonl --view pixels/1{role} --out {out}")
            records = parse((self.folder / out).read_bytes(), what=out)["records"]
            rows.append((name, records["count"], records["root_blake3"]))
        self.voice.table(rows)

    def train(self) -> None:
        """Stage 2: pre-commit, wait for the verifier's nonce, train, be killed, resume."""
        self.voice.heading(2, "Pre-commit, take the verifier's nonce, train; killed once on the way, resumed")
        training = self.voice.start_program(_TRAIN)
        self._give_nonce("run-parent", training)
        transcript = self.folder / "run-parent" / "transcript.jsonl"
        self.voice.kill_when(training, lambda: _lines(transcript) > _KILL_AFTER_LINES)
        self.voice.line(f"(killed with SIGKILL after {_lines(transcript)} lines of transcript; the same command again)")
        ended = self.voice.program(_TRAIN)
        self.voice.quote(ended.out)
        self.voice.quote(self.voice.pot("status run-parent").out)
        accuracy = float(ended.out.split("test accuracy")[-1])
        if accuracy < _ACCURACY:
            raise PotError(f"the parent's test accuracy is {accuracy}, the story promises {_ACCURACY}; see run-parent")

    def audit_parent(self) -> None:
        """Stage 3: a verifier's nonce draws segments; the auditor replays them bit by bit."""
        self.voice.heading(3, "The auditor draws segments with a fresh nonce and replays them bit by bit")
        self._challenge("run-parent", "parent", "segment", self.scale.parent_forged, self.scale.parent_detect)
        self._audit("run-parent", "parent", f"{_PARENT_INPUTS} --seed-nonce verifier/nonce-run-parent.json")

    def exclude(self) -> None:
        """Stage 4: X1 is out, with a non-membership proof; X2 is not, with a count and no content."""
        self.voice.heading(4, "Is X among the training records?")
        for name in ("train", "fine-tune"):
            what = f"data exclude commitments/{name}.json commitments/x1.json --out evidence/{name}-x1"
            self.voice.quote(self.voice.pot(what).out)
        what = "data exclude commitments/train.json commitments/x2.json --out evidence/train-x2"
        ended = self.voice.pot(what, expect=1)
        self.voice.quote(ended.err + ended.out)
        if ended.out.strip() != str(OVERLAP):
            raise PotError(f"X2 shares {OVERLAP} records with the training data, counted were {ended.out.strip()[:20]}")

    def certify_parent(self) -> None:
        """Stage 5, the developer's part: the certificate of the parent."""
        self.voice.heading(5, "Certify the parent; fine-tune it in exact integers; prove steps; certify the child")
        ended = self.voice.pot(
            "certify parent --run run-parent --key keys/developer.pem --name digits-mlp --exclude evidence/train-x1"
            " --commitment commitments --audit verifier/audit-parent.jsonl --json"
        )
        write_file(self.folder / "parent.json", ended.out.strip().encode() + b"\n")

    def fine_tune(self) -> None:
        """Stage 5, the fine-tuner's part: from the released weights, on other records, in exact integers."""
        write_file(self.folder / "secret.key", secrets.token_bytes(32), mode=0o600)
        training = self.voice.start_program(f"{_FINE_TUNE} --steps {self.scale.child_steps}")
        self._give_nonce("run-child", training)
        self.voice.quote(self.voice.finish(training, FINE_TUNE_PROGRAM).out)

    def audit_and_prove_child(self) -> None:
        """Stage 5, both: every segment is replayed, drawn steps are proven, the chain is extended."""
        self._challenge("run-child", "child", "segment", *_EVERYTHING)
        self._challenge("run-child", "steps", "step", self.scale.step_forged, self.scale.step_detect)
        proving = self.voice.start_pot(
            "prove run-child --kit kit --data data/fine-tune.jsonl --secret secret.key"
            " --challenge verifier/challenge-steps.json --out proofs"
        )
        inputs = f"{_CHILD_INPUTS} --hide release --seed-nonce verifier/nonce-run-child.json"
        self._audit("run-child", "child", inputs)
        self._audit("run-child", "steps", inputs)
        self.voice.quote(self.voice.finish(proving, "pot prove").out)
        self.voice.pot(
            f"certify release --run run-child {_CERTIFY_CHILD} --audit verifier/audit-child.jsonl"
            " --audit verifier/audit-steps.jsonl --step-proofs proofs --kit kit"
        )

    def verify(self) -> None:
        """Stage 6, first half: the regulator's policies, and both verdicts."""
        self.voice.heading(6, "The regulator verifies both releases, offline, each in one command")
        x1 = parse((self.folder / "commitments/x1.json").read_bytes(), what="x1.json")
        keys, forged, detect = self.folder / "keys", self.scale.parent_forged, self.scale.parent_detect
        write_file(self.folder / "policy-parent.yaml", parent_policy(keys, x1, forged, detect).encode())
        write_file(self.folder / "policy.yaml", child_policy(keys, x1, forged, detect, self.kit).encode())
        parent = self.voice.pot("verify parent --policy policy-parent.yaml --offline --report report-parent.html")
        self.voice.quote(parent.out.splitlines()[0])
        child = self.voice.pot("verify release --policy policy.yaml --offline --report report.html")
        self.voice.quote(child.out)

    def forge(self) -> None:
        """Stage 6, second half: seven forgeries; each must end in DENY or INCOMPLETE."""
        self.voice.heading(7, "Seven forgeries of the release")
        audit = self._forge_segment()
        key = PrivateKey.load(self.folder / "keys" / "tuner.pem")
        commitments = self.folder / "commitments"
        rows: list[tuple[str, ...]] = [("forgery", "what the forger does", "verdict")]
        for forgery in file_forgeries(key, commitments / "x2.json", commitments / "x2.digests"):
            forgery.bend(copy_release(self.folder / "release", self.folder / "forged" / forgery.name))
            rows.append((forgery.name, forgery.what, self._refused(forgery.name)))
        what = "the last segment ends in other weights, all digests adjusted, certified anew"
        rows.append(("segment", what, self._certify_segment(audit)))
        self.voice.line("")
        self.voice.table(rows)

    def _forge_segment(self) -> subprocess.Popen[str]:
        """The fine-tuner bends the last segment of the run; the auditor begins to replay it."""
        place = self.folder / "forged"
        forge_last_segment(self.folder / "run-child", place / "run-segment", place / "segment")
        self._challenge("forged/run-segment", "forged", "segment", *_EVERYTHING)
        inputs = f"{_CHILD_INPUTS} --hide forged/segment --seed-nonce verifier/nonce-run-child.json"
        return self.voice.start_pot(self._audit_words("forged/run-segment", "forged", inputs))

    def _certify_segment(self, audit: subprocess.Popen[str]) -> str:
        """The auditor's replay does not match; the fine-tuner certifies the bent run without that audit."""
        self.voice.quote(self.voice.finish(audit, "pot audit forged/run-segment", expect=1).out)
        self.voice.pot(f"certify forged/segment --run forged/run-segment {_CERTIFY_CHILD}")
        with (self.folder / "forged" / "segment" / "claims.jsonl").open("ab") as claims:
            claims.write((self.folder / "verifier" / "audit-forged.jsonl").read_bytes())
        return self._refused("segment")

    def _refused(self, name: str) -> str:
        report = self.voice.verdict(f"forged/{name}", "policy.yaml")
        if report["verdict"] not in ("DENY", "INCOMPLETE"):
            raise PotError(f"the forgery {name} got the verdict {report['verdict']}; see forged/{name}")
        self.voice.line(f"{name}: {report['verdict']}: {report['reason']}")
        return str(report["verdict"])

    def _challenge(self, run: str, name: str, unit: str, forged: str, detect: str) -> None:
        ended = self.voice.pot(
            f"challenge new {run} --unit {unit} --forged {forged} --detect {detect}"
            f" --out verifier/challenge-{name}.json"
        )
        self.voice.quote(ended.err)

    def _audit(self, run: str, name: str, inputs: str) -> None:
        self.voice.quote(self.voice.pot(self._audit_words(run, name, inputs)).out)

    def _audit_words(self, run: str, name: str, inputs: str) -> str:
        return (
            f"audit {run} --challenge verifier/challenge-{name}.json {inputs} --key keys/auditor.pem --workers 2"
            f" --out verifier/audit-{name}.jsonl"
        )

    def _give_nonce(self, run: str, program: subprocess.Popen[str]) -> None:
        """Wait until the program has pre-committed, then give it the nonce of its seed; the verifier keeps a copy."""
        precommit = self.folder / run / "precommit.json"
        deadline = time.monotonic() + _WAIT_SECONDS
        while not precommit.exists():
            if program.poll() is not None:
                self.voice.finish(program, run)
            if time.monotonic() > deadline:
                raise EnvironmentFailure(f"{precommit}: did not appear within {_WAIT_SECONDS:.0f} s")
            time.sleep(0.02)
        self.voice.pot(f"challenge seed {run}/precommit.json --out {run}/nonce.json")
        write_file(self.folder / "verifier" / f"nonce-{run}.json", (self.folder / run / "nonce.json").read_bytes())


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
