"""A fine-tune of the simulated parent, whose steps are proven: its files, its certificate, its policy.

The runs are in `tests/integration`: exact integers in `test_zk_opened.py`, family auto in `test_auto_chain.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from opened_release import image
from simulated_release import Simulation, key

from attest.bundle import ReleaseBundle, join_lines, read_release
from attest.certify import certify
from attest.step_claims import Disclosure
from attest.verdict.policy import Policy, PolicyDocument
from attest.verdict.report import Report
from pot.canonical import canonical_bytes, sha256_hex, write_file
from pot.commitments.dataset import DatasetCommitment
from pot.data.commit import commit, write_committed
from pot.recording.begin import Begun, begin
from pot.recording.precommit import Parent
from pot.zk.kit import ProvingKit

SECRET = bytes(range(32))


class FineTuned:
    """Folder with `parent` (a release bundle), `train`, `x` and `overlapping` (records and commitments), `secret`."""

    kit: ProvingKit
    steps: int

    def __init__(self, folder: Path, operation: Literal["none", "quantise/1"], records: int = 32) -> None:
        self.folder, self.model = folder, folder / "model"
        self.parent = self._parent(folder / "parent", operation)
        self.commit("train", "training", range(records))
        self.commit("x", "exclusion", range(100, 112))
        self.commit("overlapping", "exclusion", [100, 5])
        write_file(folder / "secret", SECRET)

    def _parent(self, folder: Path, operation: Literal["none", "quantise/1"]) -> Parent:
        simulation = Simulation()
        simulation._train("parent", None)
        made = simulation.models["parent"]
        write_file(folder / "model.safetensors", made.released)
        write_file(folder / "config.json", b"{}")
        write_file(folder / "claims.jsonl", join_lines(simulation.lines))
        for sha256, data in simulation.objects.items():
            write_file(folder / ".pot/objects" / sha256, data)
        return Parent(certificate_sha256=made.certificate_sha256, model_sha256=made.model_sha256, operation=operation)

    def commit(self, name: str, role: Any, numbers: Any) -> None:
        """Records, and their commitment."""
        lines = b"".join(canonical_bytes(image(number)) + b"\n" for number in numbers)
        write_file(self.folder / f"{name}.jsonl", lines)
        write_committed(commit([self.folder / f"{name}.jsonl"], "pixels/1", role), self.folder / f"{name}.json")

    def begin(
        self, run_dir: Path, *, batch_size: int, checkpoint_every: int = 1,
        semantics: Literal["float", "exact"] = "float", named: bool = True,
    ) -> Begun:  # fmt: skip
        """The run's pre-commitment: the parent, the circuit and, if `named`, the secret's digest stand in it."""
        return begin(
            run_dir, commitments=[self.folder / "train.json"], semantics=semantics, nonce="0a" * 32,
            config={
                "steps": self.steps, "checkpoint_every": checkpoint_every, "batch_size": batch_size,
                "circuit_sha256": self.kit.circuit.sha256(),
            },
            inputs=[self.folder / "train.jsonl"], parent=self.parent,
            secret_sha256=sha256_hex(SECRET) if named else None,
        )  # fmt: skip

    def proof(self, number: int) -> Path:
        """The file of a step's proof."""
        return self.folder / "proofs" / f"{number}.json"

    def certify(self, model: Path, *, steps: Any = None, **disclosure: Any) -> ReleaseBundle:
        """The release bundle of a copy of the model, with the proofs of these steps (all) and these openings."""
        write_file(model / "model.safetensors", (self.model / "model.safetensors").read_bytes())
        numbers = range(1, self.steps + 1) if steps is None else steps
        certify(
            model, self.folder / "run", key("developer"), parent=self.folder / "parent", kit=self.kit.folder,
            step_proofs=[self.proof(number) for number in numbers],
            commitments=[self.folder / "train.json"], disclosure=Disclosure(**disclosure), name="tuned",
        )  # fmt: skip
        return read_release(model)

    @property
    def everything(self) -> dict[str, Any]:
        """All that can be opened."""
        return {
            "secret": self.folder / "secret",
            "exclusions": [self.folder / "x.json"],
            "records": [self.folder / "train.jsonl"],
        }

    def policy(self, **change: Any) -> Policy:
        """Of somebody who trusts no auditor, and made the circuit and its reference string."""
        x = DatasetCommitment.from_bytes((self.folder / "x.json").read_bytes(), what="x")
        pin = {"view": x.view, "records": x.records.count, "root_blake3": x.records.root_blake3}
        document = {
            "version": "pot/policy/v1",
            "roles": {"developer": [{"name": "Acme", "public_key": key("developer").public.pem().decode()}]},
            "require": [
                {"claim": "steps-proven", "level": "proved", "every_step": True},
                {"claim": "step-exclusion", "level": "proved", "every_step": True, "exclusion": pin},
            ],
            "zk": {
                "circuits": [self.kit.circuit.sha256()],
                "srs": [{"sha256": self.kit.circuit.srs_sha256, "class": "verifier"}],
            },
        }
        return Policy.of(PolicyDocument.from_value({**document, **change}, what="policy"))


def levels(report: Report) -> dict[str, str]:
    """The levels of the fine-tune's own claims."""
    own = report.certificate.certificate_sha256 if report.certificate is not None else ""
    return {claim.type: claim.level for claim in report.claims if claim.certificate_sha256 == own}
