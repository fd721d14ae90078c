"""A fine-tune with every step proven and everything opened, with ezkl: proved without auditor and without data.

One linear layer on images of 2 x 2 pixels, four steps of eight records; about 20 seconds on two cores.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from fine_tuned import SECRET, FineTuned, levels
from opened_release import Opened
from simulated_release import failed, key, simulated_program

from attest.bundle import ReleaseBundle, read_release
from attest.verdict.verify import verify
from pot import record
from pot.canonical import canonical_bytes, write_file
from pot.data.readers import RecordDataset
from pot.errors import PotError, Refused, UsageError

pytest.importorskip("ezkl")

STEPS = 4


class Tuned(FineTuned):
    """A parent's release bundle, a kit, and a recorded run from the parent, all steps of it proven."""

    steps = STEPS

    def __init__(self, folder: Path, *, momentum: bool = False, named: bool = True) -> None:
        from pot.zk.circuits.parts import choose_shape
        from pot.zk.engine import EzklEngine
        from pot.zk.kit import build_kit, commit_points
        from pot.zk.prover import prove_step
        from pot.zk.runs.rewind import step_inputs
        from pot.zk.semantics.batches import batch_arrays
        from pot.zk.training import ExactTrainer, float_safetensors, weights_from_float, weights_of

        super().__init__(folder, "quantise/1")
        program, engine = simulated_program(limb_bits=8, momentum=momentum), EzklEngine()
        srs = engine.make_srs(choose_shape(program).logrows)
        self.kit = build_kit(program, srs, folder / "kit", engine)
        released = (folder / "parent/model.safetensors").read_bytes()
        source = ExactTrainer(
            program, weights_from_float(program, released, what="parent"), secret=SECRET,
            make_points=lambda secret, states, batches: commit_points(
                self.kit.verifying, secret, states, batches, engine
            ),
        )  # fmt: skip
        data = RecordDataset(folder / "train.jsonl")
        begun = self.begin(folder / "run", batch_size=8, checkpoint_every=2, semantics="exact", named=named)
        with record(begun, state=source, data=data) as run:
            for records in run.batches(data):
                source.step(run.done + 1, batch_arrays(program, records))
                run.step()
        write_file(self.model / "model.safetensors", float_safetensors(weights_of(program, source.state)))
        from pot.recording.checking.finished import load_run

        precommit, transcript, chain = load_run(folder / "run")
        inputs = step_inputs(folder / "run", precommit, transcript, chain, program, range(1, STEPS + 1), data)
        for item in inputs:
            proof = prove_step(
                self.kit, secret=SECRET, precommit_sha256=precommit.sha256(), number=item.number, state=item.before,
                batch=item.batch, engine=engine,
            )  # fmt: skip
            write_file(self.proof(item.number), proof.to_bytes())


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    return Tuned(tmp_path_factory.mktemp("tuned"))


@pytest.fixture(scope="module")
def release(tuned: Tuned) -> ReleaseBundle:
    return tuned.certify(tuned.folder / "opened", **tuned.everything)


def test_every_step_from_the_parents_release_is_proved_and_none_read_x(tuned: Tuned, release: ReleaseBundle) -> None:
    report = verify(release, tuned.policy())
    assert report.verdict == "PASS", report.reason
    assert levels(report)["steps-proven"] == levels(report)["step-exclusion"] == "proved"


def test_the_records_of_the_batches_are_in_the_bundle_for_all_to_read(release: ReleaseBundle) -> None:
    from pot.zk.opening_verify import read_batch_opening, records_of

    openings = [data for data in map(release.object, release.objects) if data and b"pot/batch-opening/v1" in data]
    shown = [record for data in openings for record in records_of(read_batch_opening(data))]
    assert len(openings) == STEPS
    assert len({canonical_bytes(record) for record in shown}) == 32
    assert all(record.keys() == {"image", "label"} for record in shown)  # `id` is neither read nor seen


def test_another_release_than_the_proven_one_is_denied(tuned: Tuned, release: ReleaseBundle) -> None:
    shutil.copytree(tuned.folder / "opened", tuned.folder / "bent")
    weights = bytearray(release.weights or b"")
    weights[-1] ^= 1
    write_file(tuned.folder / "bent/model.safetensors", bytes(weights))
    report = verify(read_release(tuned.folder / "bent"), tuned.policy())
    assert report.verdict == "DENY"
    assert "subject" in failed(report)


def test_without_its_openings_the_same_proofs_are_only_committed(tuned: Tuned) -> None:
    report = verify(tuned.certify(tuned.folder / "closed"), tuned.policy())
    assert report.verdict == "INCOMPLETE"
    assert levels(report)["steps-proven"] == "committed"


def test_one_step_less_is_not_every_step(tuned: Tuned) -> None:
    report = verify(tuned.certify(tuned.folder / "less", steps=range(1, STEPS), **tuned.everything), tuned.policy())
    assert report.verdict == "INCOMPLETE"
    assert levels(report)["step-exclusion"] == "committed"


def test_a_set_that_a_step_read_from_is_not_certified(tuned: Tuned) -> None:
    with pytest.raises(Refused, match="read a record of the exclusion set"):
        tuned.certify(
            tuned.folder / "lie", **{**tuned.everything, "exclusions": [tuned.folder / "overlapping.json"]}
        )  # fmt: skip
    assert not (tuned.folder / "lie/claims.jsonl").exists()


def test_the_commands_do_the_same(tuned: Tuned, capsys: pytest.CaptureFixture[str]) -> None:
    from attest.cli.main import main

    model, folder = tuned.folder / "commanded", tuned.folder
    write_file(model / "model.safetensors", (tuned.model / "model.safetensors").read_bytes())
    key("developer").save(folder / "developer.pem")
    command = ["certify", str(model), "--run", str(folder / "run"), "--key", str(folder / "developer.pem")]
    command += ["--parent", str(folder / "parent"), "--kit", str(folder / "kit")]
    command += ["--step-proofs", str(folder / "proofs"), "--commitment", str(folder / "train.json")]
    command += ["--secret", str(folder / "secret"), "--step-exclude", str(folder / "x.json")]
    assert main([*command, "--records", str(folder / "train.jsonl")]) == 0
    write_file(folder / "policy.yaml", tuned.policy().document.to_bytes())
    capsys.readouterr()
    assert main(["verify", str(model), "--policy", str(folder / "policy.yaml"), "--offline"]) == 0
    told = capsys.readouterr().out
    assert "every one of the run's 4 steps was proven" in told
    assert "as a record that any step of this run read" in told
    assert main(["policy", "check", str(folder / "policy.yaml")]) == 0
    assert "steps-proven at proved, of every step of the run" in capsys.readouterr().out
    assert main(command[:-2]) == 0  # the ends alone
    assert main(command) == 2
    assert "--step-exclude and --records belong together" in capsys.readouterr().err


def test_openings_of_other_secrets_and_data_are_not_made(tuned: Tuned) -> None:
    write_file(tuned.folder / "other", b"\1" * 32)
    with pytest.raises(Refused, match="not the secret"):
        tuned.certify(tuned.folder / "lie", secret=tuned.folder / "other")
    with pytest.raises(Refused, match="not those of the run's dataset commitment"):
        tuned.certify(tuned.folder / "lie", **{**tuned.everything, "records": [tuned.folder / "x.jsonl"]})
    for some in ({"exclusions": [tuned.folder / "x.json"]}, {"records": [tuned.folder / "train.jsonl"]}):
        with pytest.raises(UsageError, match="--secret"):
            tuned.certify(tuned.folder / "lie", **some)
        with pytest.raises(UsageError, match="belong together"):
            tuned.certify(tuned.folder / "lie", secret=tuned.folder / "secret", **some)
    with pytest.raises(UsageError, match="without step proofs"):
        tuned.certify(tuned.folder / "lie", steps=[], secret=tuned.folder / "secret")


def test_momentum_is_opened_too_and_a_secret_that_nothing_names_is_tried(tmp_path: Path) -> None:
    """The optimizer's part of the state is a file of its own; its start is fresh, its end is nobody's to judge."""
    tuned = Tuned(tmp_path, momentum=True, named=False)
    release = tuned.certify(tmp_path / "opened", **tuned.everything)
    report = verify(release, tuned.policy())
    assert report.verdict == "PASS", report.reason
    assert levels(report)["step-exclusion"] == "proved"
    write_file(tmp_path / "other", b"\1" * 32)
    with pytest.raises(Refused, match="the first state has another point than the transcript's"):
        tuned.certify(tmp_path / "lie", secret=tmp_path / "other")


def test_points_of_another_version_of_ezkl_are_not_compared(tuned: Tuned) -> None:
    from attest.verdict.step_states import default_point_maker

    kit = tuned.kit.verifying
    (made,) = default_point_maker(kit, [[1, 2, 3]])
    assert len(made) == 128
    other = replace(kit, circuit=kit.circuit.model_copy(update={"ezkl_version": "22.0.1"}))
    with pytest.raises(PotError, match=r"made with 22\.0\.1"):
        default_point_maker(other, [[1, 2, 3]])


def test_real_and_simulated_openings_are_the_same_documents(release: ReleaseBundle) -> None:
    from pot.zk.opening_verify import read_batch_opening, read_state_opening

    simulated = Opened().release()
    for kind, read in ((b"pot/batch-opening/v1", read_batch_opening), (b"pot/state-opening/v1", read_state_opening)):
        for bundle in (release, simulated):
            found = [data for data in map(bundle.object, bundle.objects) if data and kind in data]
            assert found
            assert [read(data).to_bytes() for data in found] == found
