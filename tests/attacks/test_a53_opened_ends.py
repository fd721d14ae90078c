"""A53, the ends of a proven run: every step proof holds, but the run's weights are not the ones that they are about.

A forger proves a sham run of valid steps and releases other weights. Points alone do not show it; opening both ends
does. Each forgery is first shown to pass where the one check that stops it is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import simulated_release
from opened_release import Opened
from simulated_release import failed, made_points, unchecked

from attest.verdict import step_states
from attest.verdict.policy import Policy
from attest.verdict.report import ClaimReport, Report
from attest.verdict.verify import verify
from pot.commitments.state import TensorEntry
from pot.errors import Malformed, MissingExtra
from pot.zk import opened_state
from pot.zk.opened_state import check_fresh, state_of
from pot.zk.semantics.builder import Builder


def steps(report: Report) -> ClaimReport:
    return next(claim for claim in report.claims if claim.type == "steps-proven")


def unopened(claim: dict[str, Any]) -> None:
    del claim["first_opening_sha256"], claim["last_opening_sha256"]


def only_steps(policy: dict[str, Any]) -> None:
    policy["require"] = [{"claim": "steps-proven", "level": "proved", "every_step": True}]


def sham(events: list[dict[str, Any]]) -> None:
    """The last state's point is another's: of a run of valid steps that ends in weights that nobody released."""
    last = next(event for event in reversed(events) if event["type"] == "step")
    last["points"]["after"] = simulated_release.point("the state of a sham run")


def test_every_step_from_opened_end_to_opened_end_is_proved_without_any_auditor() -> None:
    report = Opened().alone().verify()
    assert report.verdict == "PASS"
    claim = steps(report)
    assert (claim.status, claim.level, claim.every_step) == ("passed", "proved", True)
    assert claim.sentence.startswith(
        "every one of the run's 6 steps was proven: from its first weights to the released"
    )
    assert "batches-not-opened" not in {item.code for item in report.not_shown}


def test_without_openings_the_same_proofs_are_about_points_only() -> None:
    report = Opened().bend("child.steps", unopened).alone().bend("policy", only_steps).verify()
    assert report.verdict == "INCOMPLETE"
    assert (steps(report).status, steps(report).level) == ("passed", "committed")
    assert "from its first weights" not in steps(report).sentence
    assert "points-not-tied" in {item.code for item in report.not_shown}


def test_one_opened_end_ties_nothing() -> None:
    for name in ("first", "last"):
        simulation = Opened().alone().bend("policy", only_steps)
        report = simulation.bend("child.steps", lambda claim: claim.pop(f"{name}_opening_sha256") and None).verify()  # noqa: B023
        assert report.verdict == "INCOMPLETE"
        assert steps(report).level == "committed"


def test_opened_ends_with_a_step_between_them_unproven_tie_nothing() -> None:
    """k of N: the step that is left out may be any jump."""

    def leave_out(predicate: dict[str, Any]) -> None:
        for claim in predicate["claims"]:
            if claim["type"] in ("steps-proven", "step-exclusion"):
                claim["steps"] = [item for item in claim["steps"] if item["step"] != "4"]
        predicate["coverage"]["proved"] = "5"

    report = Opened().bend("child.predicate", leave_out).alone().verify()
    assert report.verdict == "INCOMPLETE"
    assert (steps(report).every_step, steps(report).level) == (False, "committed")
    assert steps(report).sentence.startswith("each listed step, 5 of 6, maps")
    assert "nobody but the prover chose them" in steps(report).sentence
    chain = next(link for link in steps(report).links if link.code == "step-chain")
    assert chain.detail == "5 of 6 steps, in 2 unbroken lines"


def test_a_sham_run_that_ends_in_other_weights_is_denied() -> None:
    simulation = Opened().bend("child.events", sham).alone().bend("policy", only_steps)
    release, policy = simulation.release(), simulation.policy()
    report = verify(release, policy, step_verifier=simulated_release.judge, point_maker=made_points)
    assert report.verdict == "DENY"
    assert failed(report) - {"requirement"} == {"state-opening"}


def test_without_comparing_points_the_sham_run_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    def believe(case: Any, code: str, kit: Any, points: Any, wanted: Any) -> set[str]:
        return {subject for subject, _, _ in wanted}

    monkeypatch.setattr(step_states, "same_points", believe)
    report = Opened().bend("child.events", sham).alone().bend("policy", only_steps).verify()
    assert report.verdict == "PASS"


def other_run(opening: dict[str, Any]) -> None:
    opening["precommit_sha256"] = "ab" * 32


def other_circuit(opening: dict[str, Any]) -> None:
    opening["circuit_sha256"] = "ab" * 32


def other_step(opening: dict[str, Any]) -> None:
    opening["step"] = "3"


def other_blinds(opening: dict[str, Any]) -> None:
    opening["blinds"] = ["01" + opening["blinds"][0][2:]]


def fewer_blinds(opening: dict[str, Any]) -> None:
    opening["blinds"] = [opening["blinds"][0][64:]]


def no_field_element(opening: dict[str, Any]) -> None:
    opening["blinds"] = ["ff" * 32 + opening["blinds"][0][64:]]


def a_vector_more(opening: dict[str, Any]) -> None:
    opening["blinds"] *= 2


def unknown_field(opening: dict[str, Any]) -> None:
    opening["weights"] = "trust me"


@pytest.mark.parametrize("stage", ["first_opening", "last_opening"])
@pytest.mark.parametrize(
    "change",
    [
        other_run, other_circuit, other_step, other_blinds, fewer_blinds, no_field_element, a_vector_more,
        unknown_field,
    ],
)  # fmt: skip
def test_an_opening_of_something_else_is_denied(stage: str, change: Any) -> None:
    report = Opened().bend(stage, change).verify()
    assert report.verdict == "DENY"
    assert failed(report) - {"requirement"} == {"state-opening"}


def test_an_opening_of_other_weights_than_the_transcripts_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sham run's own last state opens its point; that it is not the checkpoint's is all that says so."""
    simulation = Opened().alone().bend("policy", only_steps)

    def other_point(events: list[dict[str, Any]]) -> None:
        last = next(event for event in reversed(events) if event["type"] == "step")
        vectors = opened_vectors(simulation, "sham", 6)
        last["points"]["after"] = "".join(made_points(None, vectors))

    def other_file(opening: dict[str, Any]) -> None:
        opening["model_sha256"] = simulation.put(simulation.state("sham", 6))

    report = simulation.bend("child.events", other_point).bend("last_opening", other_file).verify()
    assert report.verdict == "DENY"
    assert failed(report) - {"requirement"} == {"state-opening"}
    real = step_states.tensors_digest
    digests = {real("model", step_states.entries_from_safetensors(simulation.state("sham", 6))):
               real("model", step_states.entries_from_safetensors(simulation.state("child", 6)))}  # fmt: skip
    monkeypatch.setattr(
        step_states, "tensors_digest", lambda kind, entries: digests.get(real(kind, entries), real(kind, entries))
    )
    assert simulation.verify().verdict == "PASS"


def opened_vectors(simulation: Opened, name: str, step: int) -> Any:
    from pot.commitments.state import entries_from_safetensors
    from pot.zk.circuits.packing import blinds_of, state_vectors

    program, layout = simulation.kit.program, simulation.kit.layout
    tensors = state_of(program, entries_from_safetensors(simulation.state(name, step)), [], semantics="exact")
    return state_vectors(program, layout, tensors, blinds_of(layout, simulated_release.SECRET, "state", step))


def float_run(monkeypatch: pytest.MonkeyPatch, on_grid: Callable[[str, int], bool] = lambda *_: True) -> Opened:
    """Steps taken in floats, each within 2^8 - 1 units of the circuit's. `on_grid`: which weights are on its grid."""
    real, program = simulated_release.weights, simulated_release.simulated_program(slack=8)

    def rounded(name: str, step: int) -> bytes:
        held = step_states.entries_from_safetensors(real(name, step))
        arrays = {entry.name: np.frombuffer(entry.data, "<f4").reshape(entry.shape) for entry in held}
        unit = np.float32(2.0 ** -(10 if on_grid(name, step) else 40))
        return simulated_release.serialise({name: np.round(array / unit) * unit for name, array in arrays.items()})

    def in_floats(precommit: dict[str, Any]) -> None:
        precommit["semantics"] = "float"
        precommit["parent"]["operation"] = "none"

    def as_they_are(predicate: dict[str, Any]) -> None:
        predicate["run"]["semantics"] = "float"
        predicate["operations"] = []

    monkeypatch.setattr(simulated_release, "weights", rounded)
    monkeypatch.setattr(simulated_release, "simulated_program", lambda: program)
    for name in ("integers", "floats"):
        monkeypatch.setattr(simulated_release, name, lambda data: data)
    return Opened().alone().bend("child.precommit", in_floats).bend("child.predicate", as_they_are)


def test_steps_taken_in_floats_are_proved_up_to_their_slack_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    report = float_run(monkeypatch).verify()
    assert report.verdict == "PASS", report.reason
    assert steps(report).level == "proved"
    assert "within 255 units of its grid of the exact step's (training in floats)" in steps(report).sentence


def test_a_float_run_may_begin_between_grid_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent's release lies where it lies; the first point is that of its nearest grid points."""
    assert float_run(monkeypatch, lambda name, _: name == "child").verify().verdict == "PASS"


def test_a_circuit_with_slack_is_none_for_an_exact_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a run that calls itself exact could take 2^8 - 1 units a step in any direction."""
    program = simulated_release.simulated_program(slack=8)
    monkeypatch.setattr(simulated_release, "simulated_program", lambda: program)
    report = Opened().alone().verify()
    assert report.verdict == "DENY"
    assert "circuit" in failed(report)
    from attest.verdict import step_kit

    monkeypatch.setattr(step_kit, "_fits", lambda *_: True)
    assert Opened().alone().verify().verdict == "PASS"


def test_a_missing_extra_and_a_missing_opening_are_not_checked() -> None:
    def no_extra(kit: Any, vectors: Any) -> list[str]:
        raise MissingExtra("zk", "making points")

    simulation = Opened().alone()
    release, policy = simulation.release(), simulation.policy()
    report = verify(release, policy, step_verifier=simulated_release.judge, point_maker=no_extra)
    assert report.verdict == "INCOMPLETE"
    assert {"state-opening", "batch-opening"} <= unchecked(report)
    for version in (b"pot/state-opening/v1", b"pot/batch-opening/v1"):
        kept = {name: data for name, data in release.objects.items() if version not in data}
        assert len(kept) < len(release.objects)
        assert verdict_with(release, policy, kept) == "INCOMPLETE"


def verdict_with(release: Any, policy: Policy, objects: dict[str, bytes]) -> str:
    from dataclasses import replace

    report = verify(replace(release, objects=objects), policy, step_verifier=simulated_release.judge,
                    point_maker=made_points)  # fmt: skip
    return report.verdict


def momentum_program(bits: int = 28) -> Any:
    b = Builder(limb_bits=12)
    w = b.state("w", [2, 2], bits=bits, width=bits + 6)
    m = b.state("w.momentum_buffer", [2, 2], bits=bits, width=bits + 6)
    p = b.state("optimizer.beta1_power", [1], bits=10, width=11)
    x = b.batch("x", [2, 2], kind="signed", bits=0, width=4)
    g = b.round(b.matmul(x, w), 4, limbs=1)
    moved = b.add(b.scaled(b.times(m, 1), 0), b.shift(g, bits - 4))
    b.set_next(w, b.sub(w, moved))
    b.set_next(m, moved)
    b.set_next(p, p)
    return b.program(label="momentum", batch=2, max_steps=64)


def entry(name: str, values: Any, dtype: str = "<i8") -> TensorEntry:
    array = np.asarray(values, dtype)
    return TensorEntry(name, "I64" if dtype == "<i8" else "F32", array.shape, array.tobytes())


exact_state = partial(state_of, semantics="exact")
float_state = partial(state_of, semantics="float")


def test_momentum_from_elsewhere_does_not_begin_a_run() -> None:
    """One step with a chosen momentum turns the parent's weights into any others, and its proof holds."""
    program = momentum_program()
    model, power = [entry("w", [[1, 2], [3, 4]])], entry("optimizer.beta1_power", [1 << 10])
    fresh = [power, entry("w.momentum_buffer", [[0, 0], [0, 0]])]
    check_fresh(program, exact_state(program, model, fresh))
    for other in (
        [power, entry("w.momentum_buffer", [[0, 0], [0, 1 << 28]])],
        [power, entry("w.momentum_buffer", [[1 << 28] * 2] * 2)],
        [entry("optimizer.beta1_power", [77]), fresh[1]],
        [entry("optimizer.beta1_power", [0]), fresh[1]],
    ):
        state = exact_state(program, model, other)  # a state like any other; only its freshness is wrong
        with pytest.raises(Malformed, match="not that of a fresh optimizer"):
            check_fresh(program, state)


def test_a_state_read_on_another_grid_is_not_the_released_one() -> None:
    """The policy pins a circuit of 24 fraction bits; quantise/1 has 28, so it would read 16 times the weights."""
    rest = [entry("optimizer.beta1_power", [0]), entry("w.momentum_buffer", [[0, 0], [0, 0]])]
    model = [entry("w", [[1, 2], [3, 4]])]
    assert exact_state(momentum_program(28), model, rest)["w"].tolist() == [[1, 2], [3, 4]]
    with pytest.raises(Malformed, match="24 fraction bits"):
        exact_state(momentum_program(24), model, rest)


def test_floats_between_grid_points_are_not_what_was_proven() -> None:
    """Rounded, they have the proven point; so any of the floats around it could be released."""
    rest = [entry("optimizer.beta1_power", [0]), entry("w.momentum_buffer", [[0, 0], [0, 0]])]
    program = momentum_program(12)
    good = float_state(program, [entry("w", [[0.5, -0.25], [1, 2]], "<f4")], rest)
    assert good["w"].tolist() == [[2048, -1024], [4096, 8192]]
    near = [entry("w", [[0.5001, -0.25], [1, 2]], "<f4")]
    assert opened_state.quantise_array(np.float32([0.5001]), 12).tolist() == [2048]
    with pytest.raises(Malformed, match="between the points"):
        float_state(program, near, rest)
    assert (
        float_state(program, near, rest, start=True)["w"] == good["w"]
    ).all()  # the parent's release, whatever it is


@pytest.mark.parametrize(
    ("model", "rest", "words"),
    [
        ([], ["w"], "or a weight"),
        (["w"], ["w"], "no tensor of the state, or a weight"),
        (["w"], ["unknown"], "no tensor of the state"),
        (["w"], [], "hold no tensor"),
    ],
)
def test_files_that_are_not_the_programs_state_are_refused(model: list[str], rest: list[str], words: str) -> None:
    zeros = [[0, 0], [0, 0]]
    with pytest.raises(Malformed, match=words):
        exact_state(momentum_program(), [entry(n, zeros) for n in model], [entry(n, zeros) for n in rest])


def test_tensors_of_another_shape_or_type_are_refused() -> None:
    rest = [entry("optimizer.beta1_power", [0]), entry("w.momentum_buffer", [[0, 0], [0, 0]])]
    with pytest.raises(Malformed, match="shape"):
        exact_state(momentum_program(), [entry("w", [0, 0, 0, 0])], rest)
    floats = entry("w.momentum_buffer", [[0, 0]] * 2, "<f4")
    with pytest.raises(Malformed, match="F32"):
        exact_state(momentum_program(), [entry("w", [[0, 0], [0, 0]])], [floats])


def test_a53_an_optimizers_memory_among_the_weights_is_refused() -> None:
    """A parent's release that holds momentum would hand it to the child's first step as if it were a weight."""
    zeros = [[0, 0], [0, 0]]
    with pytest.raises(Malformed, match="an optimizer's, but stands among"):
        exact_state(momentum_program(), [entry("w", zeros), entry("w.momentum_buffer", zeros)], [])


def test_a53_a_trained_weight_that_the_model_lacks_is_refused() -> None:
    """Given beside the model, it would leave the released file, and the model in use would not be the proven one."""
    zeros = [[0, 0], [0, 0]]
    with pytest.raises(Malformed, match="or a weight, which the model holds"):
        exact_state(momentum_program(), [], [entry("w", zeros), entry("w.momentum_buffer", zeros)])


def test_a53_a_negative_zero_is_no_point_of_the_grid() -> None:
    with pytest.raises(Malformed, match="between the points"):
        float_state(
            momentum_program(), [entry("w", [[-0.0, 0], [0, 0]], "<f4")], [entry("w.momentum_buffer", [[0, 0]] * 2)]
        )
