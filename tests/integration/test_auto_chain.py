"""Family auto all the way: trained in floats, proven, certified, verified; and what is refused of it. With ezkl.

Three steps of a layer with GELU; about 40 CPU-seconds.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
if importlib.util.find_spec("ezkl") is None:
    pytest.skip("needs the extra [zk]", allow_module_level=True)
from auto_chain import BATCH, FIELDS, STEPS, AutoTuned, bent_layer, cross_entropy, momentum  # noqa: E402
from fine_tuned import SECRET, levels  # noqa: E402
from simulated_release import failed  # noqa: E402

from attest.bundle import ReleaseBundle  # noqa: E402
from attest.cli.main import main  # noqa: E402
from attest.verdict.report import ClaimReport, Report  # noqa: E402
from attest.verdict.verify import verify  # noqa: E402
from pot.canonical import write_file  # noqa: E402
from pot.errors import Refused, UsageError  # noqa: E402
from pot.recording.checking.finished import load_run  # noqa: E402
from pot.zk.auto_steps import next_state  # noqa: E402
from pot.zk.auto_training import AutoTrainer  # noqa: E402
from pot.zk.engine import EngineFailure  # noqa: E402
from pot.zk.lower import lower_step  # noqa: E402
from pot.zk.proof import StepProof  # noqa: E402
from pot.zk.runs.kept import read_kept  # noqa: E402
from pot.zk.runs.rewind import points_of, step_inputs  # noqa: E402
from pot.zk.trace import torch_batch  # noqa: E402
from pot.zk.verifier import read_step_proof  # noqa: E402


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> AutoTuned:
    return AutoTuned(tmp_path_factory.mktemp("auto"))


def prove(world: AutoTuned, steps: str, *more: str, **change: Path | None) -> int:
    folder = world.folder
    options: dict[str, Path | None] = {
        "kit": folder / "kit", "data": folder / "train.jsonl", "secret": folder / "secret", "out": folder / "proofs",
        "kept": folder / "states", **change,
    }  # fmt: skip
    given = [word for name, path in options.items() if path is not None for word in (f"--{name}", str(path))]
    return main(["prove", str(folder / "run"), *given, "--steps", steps, *more])


@pytest.fixture(scope="module")
def tuned(trained: AutoTuned) -> AutoTuned:
    """The run with every step proven, by a command that was stopped after the second."""
    assert prove(trained, "2", "--workers", "1") == 0
    first = trained.proof(2).read_bytes()
    assert prove(trained, f"1-{STEPS}", "--workers", "2") == 0
    assert trained.proof(2).read_bytes() == first  # left alone
    return trained


@pytest.fixture(scope="module")
def release(tuned: AutoTuned) -> ReleaseBundle:
    return tuned.certify(tuned.folder / "opened", **tuned.everything)


def claim(report: Report, kind: str = "steps-proven") -> ClaimReport:
    own = report.certificate.certificate_sha256 if report.certificate is not None else ""
    return next(item for item in report.claims if item.type == kind and item.certificate_sha256 == own)


def test_the_network_is_one_that_family_exact_has_no_rule_for() -> None:
    module = bent_layer()
    records = [{"image": [at % 17, 3, 5, 7], "label": at % 3} for at in range(32)]
    with pytest.raises(UsageError, match="gelu"):
        lower_step(module, cross_entropy, momentum(module), FIELDS, records, batch=BATCH)


def test_a_kit_of_family_auto_is_shown_with_what_it_does_not_show(
    trained: AutoTuned, capsys: pytest.CaptureFixture[str]
) -> None:
    kit = str(trained.kit.folder)
    assert main(["zk", "show", kit]) == 0
    told = capsys.readouterr().out
    assert "state    0.weight.momentum_buffer: 3 x 4 integers v over 2^9, |v| < 2^44" in told
    assert "each rescale right to one unit in the last place, in either direction; at most 64 steps of a run" in told
    assert "not      exact integers, or one result" in told
    assert main(["zk", "show", kit, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["family"], value["parameters"], value["batch"], value["scale"]) == ("auto", 30, BATCH, 9)
    assert value["operations"]["Erf"] == 2  # forward and backward
    assert [field["name"] for field in value["fields"]] == ["image", "label"]
    assert value["circuit_sha256"] == trained.kit.circuit.sha256()
    assert 0 < value["rows"][0] < 1 << value["logrows"]
    assert len(value["not_shown"]) == 2


def test_a_dry_run_of_family_auto_needs_the_kit_alone(
    trained: AutoTuned, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "none"
    assert prove(trained, "1-3", "--dry-run", "--json", out=out, kept=None, secret=out) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["steps"], value["parts"], value["parameters"], value["columns"]) == (3, 1, 30, 4)
    assert 5 < value["cpu_seconds"] < 100
    assert value["gigabytes"] > 0
    assert not out.exists()


def test_the_states_that_ezkl_computed_are_proven_and_not_pytorchs(
    trained: AutoTuned, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prove(trained, "1", kept=None) == 2
    assert "states were kept" in capsys.readouterr().err
    run = trained.folder / "run"
    precommit, transcript, chain = load_run(run)
    given = (run, precommit, transcript, chain, trained.kit.verifying.step, [1, 2, 3])
    from pot.data.readers import RecordDataset

    data = RecordDataset(trained.folder / "train.jsonl")
    with pytest.raises(UsageError, match="exact semantics is needed"):
        list(step_inputs(*given, data))
    with pytest.raises(UsageError, match="exact semantics is needed"):  # a step of floats is none of an exact run
        list(step_inputs(run, precommit.model_copy(update={"semantics": "exact"}), *given[2:], data))
    items = list(step_inputs(*given, data, kept=trained.folder / "states"))
    for item in items:
        assert item.after is not None
        again = next_state(trained.kit, item.before, item.batch, trained.engine)
        assert all((again[name] == value).all() for name, value in item.after.items())
    assert points_of(chain, 1).after == points_of(chain, 2).before != points_of(chain, 2).after
    module = bent_layer(trained.folder / "parent/model.safetensors")
    off = module[0].weight.detach().numpy() * 2.0**9
    assert (np.rint(off) == items[0].before["0.weight"]).all()
    assert (off != np.rint(off)).any()  # the start is left as the parent released it
    released = trained.module[0].weight.detach().numpy() * 2.0**9
    assert (released == items[-1].after["0.weight"]).all()


def test_training_goes_on_from_what_was_committed_to(trained: AutoTuned) -> None:
    """The run was stopped after two steps: its third began at the state behind the second's point."""
    _, _, chain = load_run(trained.folder / "run")
    assert not chain.problems
    assert [segment.last for segment in chain.segments] == [1, 2, 3]
    kept = read_kept(trained.folder / "states", 3)
    assert all((trained.trainer.state[name] == value).all() for name, value in kept.items())
    assert 0 < trained.trainer.distance < 8


def test_ezkl_takes_a_claimed_quotient_apart(trained: AutoTuned) -> None:
    """Half of a momentum of 2^40 is no quotient of 3 limbs of 10 bits, though its remainder is small.

    So each quotient is looked up limb by limb, which no fraction of the field passes: from an opened state on all
    states are integers.
    """
    before, batch = read_kept(trained.folder / "states", 0), trained.program.batch_arrays(
        [{"image": [3, 0, at, 5], "label": 1} for at in range(BATCH)]
    )  # fmt: skip
    name = "0.weight.momentum_buffer"
    for size, reached in ((1 << 20, True), (1 << 29, True), (1 << 31, False), (1 << 40, False)):
        state = {**before, name: np.full_like(before[name], size)}
        try:
            after: Any = next_state(trained.kit, state, batch, trained.engine)
        except (Refused, EngineFailure):
            after = None
        assert (after is not None) is reached
        assert after is None or abs(after[name] - size // 2).max() < 1 << 10


def test_every_step_of_family_auto_is_proved_between_opened_ends(tuned: AutoTuned, release: ReleaseBundle) -> None:
    report = verify(release, tuned.policy())
    assert report.verdict == "PASS", report.reason
    assert levels(report)["steps-proven"] == levels(report)["step-exclusion"] == "proved"
    for kind in ("steps-proven", "step-exclusion"):
        assert (
            "family auto: each rescale right to one unit in the last place, in either direction, as the prover likes"
            " and anew in every step; run and step are bound by the committed points alone"
        ) in claim(report, kind).sentence
    assert claim(report).sentence.startswith("every one of the run's 3 steps was proven: from its first weights")
    assert "rescales-steered" in {item.code for item in report.not_shown}
    links = {link.code: link for link in claim(report).links}
    assert links["initial-weights"].level == links["points-tie"].level == "proved"


def test_with_closed_ends_an_auto_chain_is_only_committed(tuned: AutoTuned) -> None:
    report = verify(tuned.certify(tuned.folder / "closed"), tuned.policy())
    assert report.verdict == "INCOMPLETE"
    assert levels(report)["steps-proven"] == "committed"
    assert "the committed state before to the committed state after" in claim(report).sentence
    ties = next(link for link in claim(report).links if link.code == "points-tie")
    assert (ties.status, ties.level) == ("not_checked", "committed")


def test_ends_with_a_momentum_are_opened_from_the_kept_states_only(tuned: AutoTuned) -> None:
    with pytest.raises(UsageError, match="the state holds more than weights; give the folder that the trainer kept"):
        tuned.certify(tuned.folder / "lie", secret=tuned.folder / "secret")


def test_an_auto_chain_with_a_step_missing_is_not_proved(tuned: AutoTuned) -> None:
    report = verify(tuned.certify(tuned.folder / "gap", steps=[1, 3], **tuned.everything), tuned.policy())
    assert report.verdict == "INCOMPLETE"
    assert claim(report).level == claim(report, "step-exclusion").level == "committed"
    assert "each listed step, 2 of 3," in claim(report).sentence
    assert "nobody but the prover chose them" in claim(report).sentence
    assert claim(report).every_step is False


def test_a_policy_that_pins_another_circuit_does_not_take_an_auto_kit(tuned: AutoTuned, release: ReleaseBundle) -> None:
    zk = {"circuits": ["ab" * 32], "srs": [{"sha256": tuned.kit.circuit.srs_sha256, "class": "verifier"}]}
    report = verify(release, tuned.policy(zk=zk))
    assert report.verdict == "INCOMPLETE"
    assert claim(report).status == "not_checked"
    assert any(item.code == "circuit" and "does not pin it" in item.detail for item in report.findings)
    unknown = {"circuits": [tuned.kit.circuit.sha256()]}
    assert verify(release, tuned.policy(zk=unknown)).verdict == "INCOMPLETE"


@pytest.mark.parametrize("repaired", [(), ("points",), ("points", "witness"), ("points", "witness", "front")])
def test_another_steps_auto_proof_is_denied(
    tuned: AutoTuned, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, repaired: tuple[str, ...]
) -> None:
    """The second step's proof as the first's; with ever more of it made to look like the first's."""
    report = verify(presented(tuned, monkeypatch, tmp_path, repaired), tuned.policy())
    assert report.verdict == "DENY"
    assert ("step-points" if not repaired else "step-proof") in failed(report)
    assert claim(report).status == "failed"


def test_without_the_points_at_its_front_another_steps_proof_would_pass(
    tuned: AutoTuned, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """ezkl accepts it, as run and step are not inside the statement: comparing points alone ties it to its place."""
    release = presented(tuned, monkeypatch, tmp_path, ("points", "witness"))
    monkeypatch.setattr("pot.zk.verifier._check_front", lambda proof, at, *_: bytes.fromhex(proof.proofs[at]))
    assert verify(release, tuned.policy()).verdict == "PASS"


def presented(
    tuned: AutoTuned, monkeypatch: pytest.MonkeyPatch, folder: Path, repaired: tuple[str, ...]
) -> ReleaseBundle:
    """A release in which the second step's proof stands for the first's."""
    monkeypatch.setattr("attest.rehearsal._refuse_what_fails", lambda *_: None)  # a forger does not listen
    first, second = (read_step_proof(tuned.proof(number).read_bytes()) for number in (1, 2))
    change: dict[str, Any] = {"step": "1"}
    if "points" in repaired:
        change["points"] = first.points
    if "witness" in repaired:
        change["witness"] = first.witness
    if "front" in repaired:
        length = len(front(first))
        change["proofs"] = [front(first) + second.proofs[0][length:]]
    forged = second.model_copy(update=change)
    write_file(folder / "forged.json", forged.to_bytes())
    honest = AutoTuned.proof
    monkeypatch.setattr(
        AutoTuned, "proof", lambda self, number: folder / "forged.json" if number == 1 else honest(self, number)
    )
    return tuned.certify(folder / "model", **tuned.everything)


def front(proof: StepProof) -> str:
    """The points at the front of a proof's bytes."""
    return proof.points.before + proof.points.batch + "".join(proof.witness) + proof.points.after


def test_ends_of_an_auto_chain_are_not_opened_with_another_file(
    tuned: AutoTuned, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The last opening names the second state's files: other weights than the transcript ends with."""
    monkeypatch.setattr("attest.rehearsal._refuse_what_fails", lambda *_: None)
    monkeypatch.setattr("attest.step_claims._check_points", lambda *_: None)
    monkeypatch.setattr("attest.step_claims.checkpoint_name", lambda number: f"checkpoints/step-{min(number, 2):06d}")
    report = verify(tuned.certify(tmp_path / "model", **tuned.everything), tuned.policy())
    assert report.verdict == "DENY"
    assert "state-opening" in failed(report)


def test_a_step_with_another_rate_or_kit_is_refused_as_it_is_taken(trained: AutoTuned, tmp_path: Path) -> None:
    module = bent_layer(trained.folder / "parent/model.safetensors")
    optimizer = momentum(module, rate=4.0)
    trainer = AutoTrainer(trained.kit, module, optimizer, engine=trained.engine, secret=SECRET, keep_in=tmp_path)
    records = [{"image": [at, 3, 5, 7], "label": 1} for at in range(BATCH)]
    loss = cross_entropy(module, torch_batch(FIELDS, records))
    loss.backward()
    optimizer.step()
    with pytest.raises(Refused, match=r"ezkl's step lies \d+ units of the grid away from PyTorch's, 64 are allowed"):
        trainer.step(1, trained.program.batch_arrays(records))
    with pytest.raises(UsageError, match="can be proven up to number 64"):
        trainer.step(65, trained.program.batch_arrays(records))
    from pot.zk.semantics.digits import digits_program

    exact = replace(trained.kit, verifying=replace(trained.kit.verifying, step=digits_program(rate_shift=4)))
    with pytest.raises(UsageError, match="is of family exact"):
        AutoTrainer(exact, module, optimizer, engine=trained.engine, secret=SECRET, keep_in=tmp_path)


def test_setup_takes_a_program_of_family_auto_with_its_own_graph_only(
    trained: AutoTuned, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained.folder
    words = ["zk", "setup", "--out", str(tmp_path / "kit")]
    assert main([*words, "--program", str(folder / "program.json")]) == 2
    assert "make its kit, with --graph step.onnx" in capsys.readouterr().err
    assert main(["zk", "show", str(folder / "program.json")]) == 2
    assert main([*words, "--graph", str(folder / "step.onnx")]) == 2
    assert "give its --program too" in capsys.readouterr().err
    write_file(tmp_path / "other.onnx", (folder / "step.onnx").read_bytes() + b"\0")
    assert main([*words, "--program", str(folder / "program.json"), "--graph", str(tmp_path / "other.onnx")]) == 1
    assert "another sha256 than the program names" in capsys.readouterr().err
    assert not (tmp_path / "kit").exists()
