"""A53, the tensors that no step trains: every step proof holds, and another part of the model was exchanged.

The child trains two tensors of its parent's five. A forger moves one of the other three, which no step proof is about:
in the release, on the way, or at the start. Each is shown to pass where the one check that stops it is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import simulated_release
from frozen_release import FROZEN, TRAINED, changed, float_run, partly_trained
from simulated_release import failed

from attest.bundle import ReleaseBundle
from attest.verdict import operations, run, step_states
from attest.verdict.policy import Policy
from attest.verdict.report import Report
from attest.verdict.verify import verify
from pot.commitments.state import TensorEntry
from pot.errors import Malformed, UsageError
from pot.recording import precommit
from pot.zk import opened_state
from pot.zk.frozen import check_frozen, first_change

MEAN, SEEN, WEIGHT = FROZEN
HEAD = TensorEntry("head.weight", "F32", (1,), np.float32([3]).tobytes())


def sentence(report: Report) -> str:
    return next(claim.sentence for claim in report.claims if claim.type == "steps-proven")


def reasons(report: Report) -> str:
    return "; ".join(finding.detail for finding in report.findings if finding.status == "failed")


def denied(report: Report, code: str, words: str) -> None:
    assert report.verdict == "DENY"
    assert failed(report) - {"requirement"} == {code}, reasons(report)
    assert words in reasons(report)


def judged(release: ReleaseBundle, policy: Policy) -> Report:
    return verify(release, policy, step_verifier=simulated_release.judge, point_maker=simulated_release.made_points)


def with_bytes(entry: TensorEntry, data: bytes) -> TensorEntry:
    assert len(data) == len(entry.data)
    return replace(entry, data=data)


def test_the_parents_frozen_tensors_are_in_the_release_and_the_claim_says_what_was_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NaN with a payload, -0.0, a counter of integers, half precision: whatever the parent's release holds."""
    report = partly_trained(monkeypatch).verify()
    assert report.verdict == "PASS", report.reason
    assert "they train 2 of the model's 5 tensors" in sentence(report)
    assert "the others are released as the run began with them, byte for byte" in sentence(report)
    assert "no step proof shows that the records' fields or the circuit's constants come from these" in sentence(report)
    told = next(f.detail for f in report.findings if f.code == "operation")
    assert told == "recomputed here: the same weights bit by bit; 3 of 5 tensors are the same bytes in both"


def other_nan() -> list[TensorEntry]:
    """Another payload: a NaN all the same."""
    return [with_bytes(MEAN, bytes(MEAN.data[:12]) + b"\x02\x00\xc0\x7f"), SEEN, WEIGHT]


def no_sign() -> list[TensorEntry]:
    """0.0 for -0.0: equal as numbers."""
    found = with_bytes(MEAN, bytes(4) + bytes(MEAN.data[4:]))
    assert (np.frombuffer(found.data, "<f4")[:3] == np.frombuffer(MEAN.data, "<f4")[:3]).all()
    return [found, SEEN, WEIGHT]


ON_THE_WAY: dict[str, tuple[list[TensorEntry], str]] = {
    "changed": ([MEAN, SEEN, with_bytes(WEIGHT, bytes(8))], "backbone.weight"),
    "dropped": ([MEAN, SEEN], "backbone.weight"),
    "added": ([*FROZEN, HEAD], "head.weight"),
    "another dtype": ([MEAN, SEEN, replace(WEIGHT, dtype="F16")], "backbone.weight"),
    "another shape": ([MEAN, SEEN, replace(WEIGHT, shape=(4,))], "backbone.weight"),
    "integers for floats": ([replace(MEAN, dtype="I32"), SEEN, WEIGHT], "backbone.mean"),
    "another NaN": (other_nan(), "backbone.mean"),
    "0.0 for -0.0": (no_sign(), "backbone.mean"),
    "a counter that counts": ([MEAN, with_bytes(SEEN, (8).to_bytes(8, "little")), WEIGHT], "backbone.seen"),
}


@pytest.mark.parametrize("how", list(ON_THE_WAY))
def test_a_frozen_tensor_that_changes_on_the_way_is_denied(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Transcript, operations and release agree with each other; only the two opened ends do not."""
    last, name = ON_THE_WAY[how]
    simulation = partly_trained(monkeypatch, changed(last))
    denied(simulation.verify(), "state-opening", f"tensor {name} of the model changes, and no proven step trains it")
    monkeypatch.setattr(step_states, "first_change", lambda *_: None)
    assert simulation.verify().verdict == "PASS"


def believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the declared operations on their word."""

    def believe(case: Any) -> dict[str, str]:
        declared = case.certificate.operations
        case.converted |= {operation.output_sha256: TRAINED for operation in declared}
        return {operation.output_sha256: operation.input_sha256 for operation in declared}

    monkeypatch.setattr(run, "check_operations", believe)


def swapped(last: Sequence[TensorEntry]) -> Callable[[list[TensorEntry]], list[TensorEntry]]:
    return lambda entries: [*(entry for entry in entries if entry.name in TRAINED), *last]


@pytest.mark.parametrize("place", ["released", "begun"])
@pytest.mark.parametrize("how", ["changed", "dropped", "added", "another NaN"])
def test_a_frozen_tensor_unlike_the_parents_or_the_last_states_is_denied(
    monkeypatch: pytest.MonkeyPatch, how: str, place: str
) -> None:
    """Exchanged between the last state and the release, or between the parent's release and the first state."""
    last, _ = ON_THE_WAY[how]
    held = changed(last) if place == "begun" else changed(FROZEN)
    simulation = partly_trained(monkeypatch, held, **{place: swapped(last)})
    denied(simulation.verify(), "operation", "recomputed, it gives other weights")
    believed(monkeypatch)
    assert simulation.verify().verdict == "PASS"


def test_a_trained_tensor_that_the_release_leaves_an_integer_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaded into a float parameter, it would be 2^28 times what was proven."""
    simulation = partly_trained(monkeypatch, dequantised={"0.weight"})
    denied(simulation.verify(), "operation", "do not convert the same tensors; one leaves out '0.bias'")
    monkeypatch.setattr(operations, "_check_names", lambda *_: None)
    denied(simulation.verify(), "state-opening", "tensor 0.bias is converted or trained, but not both")
    believed(monkeypatch)
    assert simulation.verify().verdict == "PASS"


def test_a_frozen_tensor_that_is_put_on_the_grid_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quantised and back it is another: 0.1 loses its last bits, small numbers everything."""
    scale = replace(HEAD, data=np.float32([1e-9]).tobytes())
    names = {*TRAINED, "head.weight"}
    simulation = partly_trained(monkeypatch, lambda *_: [*FROZEN, scale], quantised=names, dequantised=names)
    denied(simulation.verify(), "state-opening", "tensor head.weight is converted or trained, but not both")
    assert operations.apply_operation("dequantise/1", operations.apply_operation("quantise/1", [scale])) != [scale]
    believed(monkeypatch)
    assert simulation.verify().verdict == "PASS"


def test_a_trained_tensor_that_is_declared_frozen_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    """The circuit trains it, the files say that it stays: as floats on the grid, which an exact run does not train."""
    names = {"0.weight"}

    simulation = partly_trained(monkeypatch, quantised=names, dequantised=names)
    tensors = opened_state._weight

    def either(entry: TensorEntry, node: Any, semantics: Any, start: bool) -> Any:
        return tensors(entry, node, "float" if entry.dtype == "F32" else semantics, True)

    with monkeypatch.context() as patch:  # the forger makes the points of such states all the same
        patch.setattr(opened_state, "_weight", either)
        release, policy = simulation.release(), simulation.policy()
    import simulated_release

    from attest.verdict.verify import verify

    def judged() -> Report:
        return verify(release, policy, step_verifier=simulated_release.judge, point_maker=simulated_release.made_points)

    denied(judged(), "state-opening", "tensor 0.bias is F32, expected I64")
    monkeypatch.setattr(opened_state, "_weight", either)
    denied(judged(), "state-opening", "tensor 0.bias is converted or trained, but not both")
    believed(monkeypatch)
    assert judged().verdict == "PASS"


def test_a_frozen_tensor_named_as_an_optimizers_memory_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run, whose program has that slot, would begin with it."""
    memory = TensorEntry("0.weight.exp_avg", "F32", (3, 4), np.ones((3, 4), "<f4").tobytes())
    simulation = partly_trained(monkeypatch, lambda *_: [*FROZEN, memory])
    with monkeypatch.context() as patch:
        patch.setattr(opened_state, "is_remembered", lambda name, _: False)
        assert simulation.verify().verdict == "PASS"
        release, policy = simulation.release(), simulation.policy()
    denied(
        judged(release, policy),
        "state-opening",
        "0.weight.exp_avg is an optimizer's, but stands among the model's weights",
    )


def test_integers_are_no_weights_of_a_float_run() -> None:
    """A float run's file of weights is released as it is: integers in it would load as numbers 2^28 times as large."""
    program = simulated_release.simulated_program(slack=8)
    weights = [
        TensorEntry(name, "I64", shape, bytes(8 * size))
        for name, shape, size in (("0.bias", (3,), 3), ("0.weight", (3, 4), 12))
    ]
    assert opened_state.state_of(program, weights, [], semantics="exact").keys() == TRAINED
    with pytest.raises(Malformed, match="is I64, expected F32"):
        opened_state.state_of(program, weights, [], semantics="float")


def test_a_float_run_that_begins_with_integers_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent's frozen 0.5 would be released as 134217728, and the claim would say: byte for byte as it began."""
    simulation = float_run(monkeypatch, replace(HEAD, name="base.weight", data=np.float32([0.5]).tobytes()))
    report = simulation.verify()
    assert (report.verdict, {"precommit", "operation"} <= failed(report)) == ("DENY", True)
    monkeypatch.setattr(precommit, "_check_parent", lambda _: None)
    denied(simulation.verify(), "operation", "a run in floats converts no weights")
    monkeypatch.setattr(operations, "_check_names", lambda *_: None)
    assert simulation.verify().verdict == "PASS"


def test_the_trainer_takes_no_frozen_tensor_that_the_verdict_refuses() -> None:
    for names, error in ((["w"], UsageError), (["x", "x"], UsageError), (["w.exp_avg"], Malformed),
                         (["optimizer.beta1_power"], Malformed)):  # fmt: skip
        with pytest.raises(error, match="frozen tensor"):
            check_frozen({"w", "b"}, [replace(HEAD, name=name) for name in names])
    check_frozen({"w", "b"}, [replace(HEAD, name=name) for name in ("x", "x.exp_avg", "ww.exp_avg")])


def test_two_lists_of_tensors_are_compared_byte_for_byte() -> None:
    assert first_change(FROZEN, list(reversed(FROZEN))) is None
    assert first_change([], []) is None
    empty = TensorEntry("e", "F32", (0, 2), b"")
    assert first_change([empty], [replace(empty, data=memoryview(b""))]) is None
    assert first_change([empty], [replace(empty, shape=(2, 0))]) == "e"
    for last, name in ON_THE_WAY.values():
        assert first_change(FROZEN, last) == first_change(last, FROZEN) == name
