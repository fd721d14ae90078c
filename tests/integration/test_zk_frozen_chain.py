"""A float fine-tune of one tensor of two, every step proven with ezkl, from the parent's release to the released file.

The bias of a linear layer is trained, its weight is frozen: a constant of the circuit, a tensor of the module. Two
steps of eight records; the exact chain is the example `zk_finetune.py --frozen records`. About 15 CPU-seconds.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fine_tuned import SECRET, FineTuned, levels

from attest.bundle import read_release
from attest.verdict.verify import verify
from pot import record
from pot.canonical import write_file
from pot.data.readers import RecordDataset
from pot.errors import Refused

pytest.importorskip("ezkl")
torch = pytest.importorskip("torch")

STEPS, BATCH, RATE = 2, 8, 0.25
SLACK = 19  # bits: seven times the largest distance that was measured


class BiasTuned(FineTuned):
    """A parent's release, a kit, a recorded float run with one frozen tensor, and its step proofs."""

    steps = STEPS

    def __init__(self, folder: Path) -> None:
        from pot.zk.circuits.parts import choose_shape
        from pot.zk.engine import EzklEngine
        from pot.zk.kit import build_kit

        super().__init__(folder, "none")
        self.program, self.engine = self._program(), EzklEngine()
        self.kit = build_kit(
            self.program, self.engine.make_srs(choose_shape(self.program).logrows), folder / "kit", self.engine
        )
        self.train(folder / "run")
        self.prove()

    def module(self) -> Any:
        from safetensors.torch import load_file

        module = torch.nn.Sequential(torch.nn.Linear(4, 3))
        module.load_state_dict(load_file(str(self.folder / "parent/model.safetensors")))
        module[0].weight.requires_grad_(False)
        return module

    def _program(self) -> Any:
        from pot.zk.lower import lower_step
        from pot.zk.lowering.optimizers import Sgd

        data = RecordDataset(self.folder / "train.jsonl")
        examples = [dict(data[at]) for at in range(len(data))]
        return lower_step(
            self.module(), self.loss, Sgd(RATE), self.fields, examples, batch=BATCH, limb_bits=10, slack=SLACK,
            calibration_steps=8, max_steps=64,
        ).program  # fmt: skip

    @property
    def fields(self) -> Any:
        from pot.zk.trace import Field

        return {"image": Field("unsigned", (4,), bits=4, width=5), "label": Field("marks", (3,))}

    @staticmethod
    def loss(model: Any, batch: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(batch["image"]), batch["label"])

    def train(self, run_dir: Path, *, moved: bool = False) -> None:
        """The recorded program. `moved`: it also moves the frozen weight."""
        from safetensors.torch import save

        from pot.zk.float_training import FloatTrainer
        from pot.zk.kit import commit_points
        from pot.zk.semantics.batches import batch_arrays
        from pot.zk.trace import torch_batch

        module = self.module()
        optimizer = torch.optim.SGD([module[0].bias], lr=RATE)
        trainer = FloatTrainer(
            self.program, module, optimizer, secret=SECRET, keep_in=self.folder / "states",
            make_points=partial(self._points, commit_points),
        )  # fmt: skip
        begun = self.begin(run_dir, batch_size=BATCH)
        data = RecordDataset(self.folder / "train.jsonl")
        with record(begun, state=trainer, data=data) as run:
            for records in run.batches(data):
                optimizer.zero_grad()
                self.loss(module, torch_batch(self.fields, records)).backward()
                optimizer.step()
                if moved:
                    module[0].weight.data += 0.5
                trainer.step(run.done + 1, batch_arrays(self.program, records))
                run.step()
        write_file(self.model / "model.safetensors", save(module.state_dict()))

    def _points(self, commit_points: Any, *given: Any) -> list[str]:
        made: list[str] = commit_points(self.kit.verifying, *given, self.engine)
        return made

    def prove(self) -> None:
        from pot.recording.checking.finished import load_run
        from pot.zk.prover import prove_step
        from pot.zk.runs.rewind import step_inputs

        precommit, transcript, chain = load_run(self.folder / "run")
        data = RecordDataset(self.folder / "train.jsonl")
        for item in step_inputs(
            self.folder / "run", precommit, transcript, chain, self.program, range(1, STEPS + 1), data,
            kept=self.folder / "states",
        ):  # fmt: skip
            proof = prove_step(
                self.kit, secret=SECRET, precommit_sha256=precommit.sha256(), number=item.number, state=item.before,
                batch=item.batch, after=item.after, engine=self.engine,
            )  # fmt: skip
            write_file(self.proof(item.number), proof.to_bytes())


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> BiasTuned:
    return BiasTuned(tmp_path_factory.mktemp("bias"))


def test_a_float_run_of_one_tensor_is_proved_from_the_parents_release_to_the_released_file(tuned: BiasTuned) -> None:
    from safetensors.torch import load_file

    report = verify(tuned.certify(tuned.folder / "opened", **tuned.everything), tuned.policy())
    assert report.verdict == "PASS", report.reason
    assert levels(report)["steps-proven"] == "proved"
    (told,) = [claim.sentence for claim in report.claims if claim.type == "steps-proven"]
    assert "they train 1 of the model's 2 tensors" in told
    assert "training in floats" in told
    before, after = (load_file(str(tuned.folder / name / "model.safetensors")) for name in ("parent", "opened"))
    assert torch.equal(before["0.weight"], after["0.weight"])
    assert not torch.equal(before["0.bias"], after["0.bias"])


def test_a_frozen_tensor_exchanged_in_the_released_file_is_denied(
    tuned: BiasTuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the certificate was made; and before, when none is made."""
    from safetensors.torch import load_file, save

    model = tuned.folder / "bent"
    tuned.certify(model, **tuned.everything)
    held = load_file(str(model / "model.safetensors"))
    bent = save({**held, "0.weight": held["0.weight"] + 1})
    write_file(model / "model.safetensors", bent)
    assert verify(read_release(model), tuned.policy()).verdict == "DENY"
    monkeypatch.setattr(tuned, "model", tuned.folder / "other")
    write_file(tuned.model / "model.safetensors", bent)
    with pytest.raises(Refused, match="released-weights"):
        tuned.certify(tuned.folder / "lie", **tuned.everything)


def test_a_frozen_tensor_that_a_recorded_program_moves_stops_the_run(tuned: BiasTuned) -> None:
    with pytest.raises(Refused, match=r"0\.weight: has changed, but no step trains it"):
        tuned.train(tuned.folder / "run-moved", moved=True)
