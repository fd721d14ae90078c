"""Screening: honest runs pass in silence, every anomaly is a finding, and no file content makes it crash."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pot.audit.screening import checkpoints
from pot.audit.screening.checkpoints import Group, chunks, open_checkpoint
from pot.audit.screening.checks import MAX_DETAILED, MAX_LISTED, Screening, screen
from pot.audit.screening.moments import AdamBounds, adam_bounds
from pot.audit.screening.movement import measure
from pot.audit.screening.outliers import disagreements, loss_jumps, shared_by_chance, spikes
from pot.audit.screening.scoring import THRESHOLDS, scores
from pot.canonical import canonical_bytes, sha256_hex
from pot.commitments.state import TensorEntry
from pot.errors import Malformed, Refused


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One honest run with Adam, eight segments of five steps; not to be changed."""
    from small_training import Recipe, train

    return train(tmp_path_factory.mktemp("trained"), Recipe("", rate=2e-3, segments=8, every=5))


@pytest.fixture
def run(trained: Any, tmp_path: Path) -> Any:
    """A copy, to be bent."""
    from small_training import TrainedRun

    shutil.copytree(trained.folder, tmp_path / "program")
    return TrainedRun(tmp_path / "program", [], trained.recipe)


def screened(run: Any) -> Screening:
    assert run.codes() == []
    return screen(run.run_dir, run.precommit, run.chain())


def fired(run: Any) -> dict[int, set[str]]:
    """Which checks fired in which segment."""
    return {int(item.segment): {one.check for one in item.checks} for item in screened(run).details}


def bend(run: Any, step: int, edit: Any) -> None:
    """Change the state of one checkpoint, and all that follows from it."""
    from forgeries import rewrite, states

    state = states(run)[step]
    edit(state)
    rewrite(run, {step: state})


def put(name: str, value: Any) -> Any:
    def edit(state: Any) -> None:
        state.optimizer[name] = value(state.optimizer[name])

    return edit


FIRST, COUNTER = "state.1.weight/exp_avg", "state.1.weight/step"


def test_an_honest_run_passes(run: Any) -> None:
    found = screened(run)
    assert (found.segments, found.flagged, found.suspicious, found.details) == ("8", "0", (), ())
    assert found.unread == ()
    assert Screening.from_bytes(found.to_bytes(), what="screening") == found


def test_progress_is_told(run: Any) -> None:
    told: list[tuple[str, int, int]] = []
    screen(run.run_dir, run.precommit, run.chain(), lambda *what: told.append(what))
    assert told == [("screening", number, 8) for number in range(1, 9)]


def test_integer_training_is_screened_by_its_norms(recorded: Any) -> None:
    found = screen(recorded.run_dir, recorded.precommit, recorded.chain())
    assert found.flagged == "0"
    assert "optimizer" in found.unread
    measured, _ = scores(recorded.run_dir, recorded.chain())
    assert "jump" in measured[2]
    assert not {"reach", "history", "push", "moments"} & measured[2].keys()


def test_a_jump_in_integer_training_is_seen(recorded: Any) -> None:
    recorded.bend_tensors(15, "model", lambda values: [value + 10**7 for value in values])
    details = screen(recorded.run_dir, recorded.precommit, recorded.chain()).details
    assert "jump" in {one.check for item in details for one in item.checks}


def test_a_lost_checkpoint_flags_both_segments_that_need_it(run: Any) -> None:
    shutil.rmtree(run.run_dir / "checkpoints/step-000020")
    assert fired(run) == {4: {"files"}, 5: {"files"}}
    assert "files" in screened(run).unread


@pytest.mark.parametrize("kind", ["other bytes", "longer", "link", "pipe", "folder"])
def test_files_that_are_not_the_committed_ones(run: Any, kind: str) -> None:
    path = run.run_dir / "checkpoints/step-000040/model.safetensors"
    data = bytearray(path.read_bytes())
    path.unlink()
    if kind == "other bytes":
        data[-1] ^= 1
        path.write_bytes(data)
    elif kind == "longer":
        path.write_bytes(data + b"\0")
    elif kind == "link":
        path.with_name("elsewhere").write_bytes(data)
        path.symlink_to("elsewhere")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert fired(run) == {8: {"files"}}


def test_tensors_that_the_component_does_not_name(run: Any) -> None:
    """A file with its right SHA-256 beside a digest of other tensors."""
    events = run.events()
    event = [item for item in events if item["type"] == "checkpoint"][3]
    event["components"]["model"] = "ab" * 32
    run.restate(events)
    assert fired(run) == {3: {"files"}, 4: {"files"}}
    with pytest.raises(Refused, match="not those of the committed component"):
        open_checkpoint(run.run_dir, run.chain().segments[2].end_state)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", ["model", "moments"])
def test_values_that_are_not_finite(run: Any, part: str, value: float) -> None:
    def edit(state: Any) -> None:
        tensor = state.model["1.weight"] if part == "model" else state.optimizer[FIRST]
        tensor[0, 0] = value

    bend(run, 20, edit)
    found = fired(run)
    assert "finite" in found[4]
    assert part == "moments" or "finite" in found[5]


def test_huge_values_overflow_nothing(run: Any) -> None:
    bend(run, 20, lambda state: state.model["1.weight"].fill(3e38))
    assert {"reach", "jump"} <= fired(run)[4]


@pytest.mark.parametrize("kind", ["transposed", "other type", "left out", "added"])
def test_tensors_of_another_shape(run: Any, kind: str) -> None:
    def edit(state: Any) -> None:
        if kind == "transposed":
            state.model["1.weight"] = np.ascontiguousarray(state.model["1.weight"].T)
        elif kind == "other type":
            state.model["1.weight"] = np.ones((32, 64), np.int64)
        elif kind == "left out":
            del state.model["1.weight"]
        else:
            state.model["more"] = np.ones(3, np.float32)

    bend(run, 20, edit)
    found = fired(run)
    assert "shape" in found[4]
    assert "shape" in found[5]


def test_moments_of_another_shape(run: Any) -> None:
    bend(run, 20, put(FIRST, lambda value: value[:, :3].copy()))
    assert "shape" in fired(run)[4]


def test_moments_that_vanish(run: Any) -> None:
    bend(run, 20, lambda state: state.optimizer.pop(FIRST))
    assert "shape" in fired(run)[4]


@pytest.mark.parametrize(
    "value",
    [{"real": "-0.002"}, {"real": "nan"}, {"real": "inf"}, "0.002", True, None, {"real": "1" * 100},
     {"tensor": "x", "value": {"tensor": "y", "value": 1}}],
)  # fmt: skip
def test_rates_that_training_does_not_have(run: Any, value: Any) -> None:
    bend(run, 20, lambda state: state.document["groups"][0].update(lr=value))
    found = fired(run)
    assert "rate" in found[4]
    assert "rate" in found[5]


@pytest.mark.parametrize(
    "document", [[], {"groups": 3}, {"groups": [3]}, {"groups": [{"params": "x"}]}, {"groups": [{"params": [1]}]}]
)
def test_groups_that_cannot_be_read(run: Any, document: Any) -> None:
    bend(run, 40, lambda state: setattr(state, "document", document))
    assert fired(run) == {8: {"files"}}


def test_groups_of_other_parameters(run: Any) -> None:
    bend(run, 20, lambda state: state.document["groups"][0]["params"].pop())
    assert "shape" in fired(run)[4]


@pytest.mark.parametrize(
    ("edit", "check"),
    [(lambda value: value + 1, "counter"), (lambda value: value * 0 + 3, "counter"),
     (lambda value: value * np.float32(np.nan), "finite"), (lambda value: value + np.float32(0.5), "finite"),
     (lambda value: np.array([20.0, 20.0], np.float32), "finite")],
)  # fmt: skip
def test_counters_that_are_not_the_step_numbers(run: Any, edit: Any, check: str) -> None:
    bend(run, 20, put(COUNTER, edit))
    assert check in fired(run)[4]


def test_a_parameter_that_moved_without_a_step(run: Any) -> None:
    bend(run, 20, lambda state: state.optimizer.update({COUNTER: np.float32(15).reshape(())}))
    assert "reach" in fired(run)[4]


def test_steps_that_a_gradient_scaler_left_out(run: Any) -> None:
    segment = run.chain().segments[3]
    start, end = (open_checkpoint(run.run_dir, event) for event in (segment.start_state, segment.end_state))
    for name, entry in end.optimizer.items():
        if name.endswith("/step"):
            end.optimizer[name] = TensorEntry(name, "F32", entry.shape, np.float32(18).tobytes())
    assert measure(None, start, end).counted == -2
    assert measure(None, start, replace(end, scaled=True)).counted == 0
    for name, entry in end.optimizer.items():
        if name.endswith("/step"):
            end.optimizer[name] = TensorEntry(name, "F32", entry.shape, np.float32(22).tobytes())
    assert measure(None, start, replace(end, scaled=True)).counted == 2


def test_a_layer_that_rests_for_a_while_is_no_anomaly(tmp_path: Path) -> None:
    """Without a gradient Adam passes a parameter over: its counter lags behind, and it does not move."""
    from small_training import Recipe, train

    def thaw(step: int, model: Any, *_: Any) -> None:
        for parameter in model[1].parameters():
            parameter.requires_grad_(step >= 20)

    run = train(tmp_path, Recipe("", rate=2e-3, segments=8, every=5), thaw)
    found, _ = scores(run.run_dir, run.chain())
    assert found[2]["counter"] == found[2]["reach"] == 0.0
    assert screened(run).flagged == "0"


def test_losses_that_never_change(run: Any) -> None:
    events = run.events()
    for event in events:
        if event["type"] == "step":
            event["loss"] = "0.5"
    run.restate(events)
    assert set(fired(run)) == set(range(1, 9))


def test_a_loss_beyond_all_doubles(run: Any) -> None:
    events = run.events()
    next(event for event in events if event["type"] == "step" and event["step"] == "12")["loss"] = "1e999"
    run.restate(events)
    assert fired(run)[3] == {"finite"}


def test_a_run_without_losses_is_screened_without_them(run: Any) -> None:
    events = run.events()
    for event in events:
        event.pop("loss", None)
    run.restate(events)
    found = screened(run)
    assert (found.flagged, found.unread) == ("0", ("losses",))


def test_the_most_suspicious_come_first(run: Any) -> None:
    bend(run, 30, lambda state: state.model["1.weight"].__iadd__(1.0))
    bend(run, 15, put(FIRST, lambda value: value * 3))
    shutil.rmtree(run.run_dir / "checkpoints/step-000040")
    found = screened(run)
    assert found.suspicious[:2] == ("6", "7")
    assert set(found.suspicious) >= {"3", "6", "7", "8"}
    strengths = [max(float(one.score) / float(one.threshold) for one in item.checks) for item in found.details]
    assert strengths == sorted(strengths, reverse=True)


def test_chunks_do_not_change_the_numbers(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = scores(run.run_dir, run.chain())
    monkeypatch.setattr(checkpoints, "CHUNK", 7)
    parts, _ = scores(run.run_dir, run.chain())
    for one, other in zip(whole, parts, strict=True):
        assert one == pytest.approx(other, rel=1e-6)


def test_memory_does_not_grow_with_the_tensor() -> None:
    entry = TensorEntry("w", "F32", (3 * checkpoints.CHUNK + 5,), memoryview(bytes(4 * (3 * checkpoints.CHUNK + 5))))
    sizes = [part.size for (part,) in chunks(entry)]
    assert sizes == [checkpoints.CHUNK] * 3 + [5]


def test_short_reals_are_read_as_torch_reads_them() -> None:
    import torch

    values = torch.randn(1000) * torch.logspace(-30, 30, 1000)
    for kind, name in ((torch.bfloat16, "BF16"), (torch.float16, "F16"), (torch.float64, "F64")):
        short = values.to(kind)
        data = bytes(short.view(torch.uint8).numpy())
        ((found,),) = list(chunks(TensorEntry("x", name, (1000,), data)))
        np.testing.assert_array_equal(found, short.double().numpy())


def test_types_that_are_no_numbers_are_passed_over(run: Any) -> None:
    segment = run.chain().segments[3]
    start, end = (open_checkpoint(run.run_dir, event) for event in (segment.start_state, segment.end_state))
    for opened in (start, end):
        opened.model.clear()
        opened.model["1.weight"] = TensorEntry("1.weight", "F8_E5M2", (4,), b"abcd")
    found = measure(None, start, end)
    assert (found.moved, found.checked) == (0.0, 0)
    assert "model" in found.unread


def _adam(gradients: Any, betas: tuple[float, float], rate: float) -> list[tuple[Any, Any, Any]]:
    """PyTorch's Adam in float32: weights and moments after each step."""
    import torch

    weights = torch.nn.Parameter(torch.zeros(gradients.shape[1]))
    optimizer = torch.optim.Adam([weights], lr=rate, betas=betas)
    found = []
    for gradient in gradients:
        weights.grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.step()
        state = optimizer.state[weights]
        parts = (weights.detach(), state["exp_avg"], state["exp_avg_sq"])
        found.append(tuple(part.numpy().astype(np.float64) for part in parts))
    return found


def _group(betas: tuple[float, float]) -> Group:
    return Group(("w",), 1.0, 1.0, 0.0, 0.0, betas, 1e-8, 0.0, frozenset({"amsgrad", "betas"}), False)


def _bounds(betas: tuple[float, float], before: int, after: int) -> AdamBounds:
    found = adam_bounds(_group(betas), before, after)
    assert found is not None
    return found


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9), (0.95, 0.95), (0.0, 0.99), (0.99, 0.9)])
@pytest.mark.parametrize("kind", ["noise", "constant", "sparse", "growing", "vanishing", "alternating", "tiny"])
def test_no_gradients_break_adams_bounds(betas: tuple[float, float], kind: str) -> None:
    rng = np.random.default_rng(7)
    gradients = rng.normal(0, 1, (60, 200)) * rng.lognormal(0, 3, 200)
    steps = np.arange(60)[:, None]
    gradients = {
        "noise": gradients,
        "constant": np.ones_like(gradients) * gradients[0],
        "sparse": gradients * (rng.random(gradients.shape) < 0.05),
        "growing": gradients * 1.5**steps,
        "vanishing": gradients * 0.5**steps,
        "alternating": np.abs(gradients) * (-1.0) ** steps,
        "tiny": gradients * 1e-21,
    }[kind]
    told = _adam(gradients, betas, 1.0)
    for before, after in ((1, 2), (1, 60), (10, 15), (5, 45), (59, 60)):
        (w0, m0, v0), (w1, m1, v1) = told[before - 1], told[after - 1]
        bounds = _bounds(betas, before, after)
        assert bounds.history_broken(m0, v0, m1, v1, 2.0**-24) == 0
        slack = 1e-6 * (after - before) * np.maximum(np.abs(w0), np.abs(w1))
        assert (np.abs(w1 - w0) <= bounds.reach(m0, v0, v1, 2.0**-24) + slack).all()
    first = told[0]
    zero = np.zeros(200)
    assert (np.abs(first[0]) <= _bounds(betas, 0, 1).reach(zero, zero, first[2], 2.0**-24)).all()


def test_adams_bounds_are_near_what_can_be_reached() -> None:
    """They would be worthless if they allowed anything: steady gradients come within a third."""
    told = _adam(np.ones((60, 5)), (0.9, 0.999), 1.0)
    (w0, m0, v0), (w1, _, v1) = told[9], told[29]
    limit = _bounds((0.9, 0.999), 10, 30).reach(m0, v0, v1, 2.0**-24)
    assert (np.abs(w1 - w0) > limit / 3).all()
    assert _bounds((0.9, 0.999), 10, 30).history_broken(m0, v0, m0 * 4, v1, 2.0**-24) == 5
    assert _bounds((0.9, 0.999), 10, 30).history_broken(m0, v0, m0, v0 * 0.97, 2.0**-24) == 5


@pytest.mark.parametrize(("before", "after"), [(5, 5), (7, 5), (0, 1 << 50), (-3, 4)])
def test_counters_that_bound_nothing(before: int, after: int) -> None:
    assert adam_bounds(_group((0.9, 0.999)), before, after) is None


def test_long_segments_have_finite_bounds_without_long_work() -> None:
    bounds = _bounds((0.9, 0.999), 10, 1 << 39)
    assert np.isfinite(bounds.largest)
    one = np.ones(1)
    assert bounds.reach(one, one, one, 0.0)[0] == pytest.approx(bounds.largest, rel=0.01)
    steps = _bounds((0.9, 0.999), 0, 10_000)
    assert steps.largest == pytest.approx(sum(_bounds((0.9, 0.999), n, n + 1).largest for n in range(10_000)), rel=0.06)


def test_a_spike_stands_out_and_a_slope_does_not() -> None:
    slope = [2.0 * 0.7**number for number in range(20)]
    assert max(score for score in spikes(slope) if score is not None) < 2.5
    slope[11] *= 60
    found = spikes(slope)
    assert (found[11] or 0) > THRESHOLDS["jump"]
    assert all(score is None or score < 2.5 for place, score in enumerate(found) if place != 11)
    assert spikes([1.0, 0.0, 1.0]) == [None] * 3


def test_a_loss_that_changes_at_a_checkpoint_only() -> None:
    rng = np.random.default_rng(1)
    losses = [[float(2 * 0.98 ** (10 * part + n) + rng.normal(0, 0.01)) for n in range(10)] for part in range(8)]
    assert max(score for score in loss_jumps(losses) if score is not None) < 6
    jumped = losses[:4] + [[loss + 1.0 for loss in part] for part in losses[4:]]
    found = loss_jumps(jumped)
    assert (found[3] or 0) > THRESHOLDS["loss"]
    assert found[-1] is None


def test_losses_that_are_told_every_so_many_steps() -> None:
    """As a logger gives them: each stands for fifty steps, and changes where a checkpoint lies."""
    losses = [[2 * 0.8**part + 0.1 * (part % 2)] * 50 for part in range(12)]
    assert max(score for score in loss_jumps(losses) if score is not None) < 6


def test_what_noise_shares_with_its_moments() -> None:
    """The closed form beside a simulation."""
    rng = np.random.default_rng(2)
    steps, memory = 30, 0.9
    buffer, moved = np.zeros(50_000), np.zeros(50_000)
    for _ in range(steps):
        buffer = memory * buffer + rng.normal(size=50_000)
        moved += buffer
    simulated = buffer @ moved / np.linalg.norm(buffer) / np.linalg.norm(moved)
    assert shared_by_chance(steps, memory) == pytest.approx(simulated, abs=0.02)
    assert shared_by_chance(1, 0.5) == 1.0
    assert shared_by_chance(0, 0.5) is shared_by_chance(5, 0.0) is shared_by_chance(5, 1.0) is None


def test_one_disagreement_among_many() -> None:
    found = disagreements([0.9, 0.88, 0.91, None, 0.9, 0.89, -0.5, 0.9, 0.92, 0.87, 0.9, 0.91, 0.88])
    assert found[3] is None
    assert (found[6] or 0) > THRESHOLDS["moments"]
    assert disagreements([0.9, -0.9]) == [None, None]


def _document(**change: Any) -> dict[str, Any]:
    value = {
        "version": "pot/screening/v1", "thresholds": "1", "segments": "9", "flagged": "2", "suspicious": ["7", "3"],
        "details": [{"segment": "7", "checks": [{"check": "line", "score": "11.0", "threshold": "8.0"}]}],
        "unread": ["losses"],
    }  # fmt: skip
    return {**value, **change}


def test_the_document_is_read() -> None:
    data = canonical_bytes(_document())
    assert Screening.from_bytes(data, what="s").sha256() == sha256_hex(data)


@pytest.mark.parametrize(
    "change",
    [{"flagged": "1"}, {"flagged": "3"}, {"flagged": "10"}, {"suspicious": ["7", "7"]}, {"suspicious": ["7", "10"]},
     {"suspicious": ["0", "7"]}, {"suspicious": ["3", "7"]}, {"unread": ["nothing"]}, {"unread": ["model", "losses"]},
     {"details": [{"segment": "7", "checks": []}]}, {"version": "pot/screening/v2"}, {"thresholds": "2"},
     {"details": [{"segment": "7", "checks": [{"check": "mood", "score": "1", "threshold": "1"}]}]}],
)  # fmt: skip
def test_documents_that_contradict_themselves(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        Screening.from_value(_document(**change), what="screening")


def test_a_document_of_very_many_fits_into_a_statement(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = run.chain()
    first = chain.segments[0]
    many = tuple(
        type(first)(number, first.first, first.last, first.start_state, first.end_state, first.steps)
        for number in range(1, 3001)
    )
    bad = {check: 2 * threshold for check, threshold in THRESHOLDS.items()}
    monkeypatch.setattr("pot.audit.screening.scoring.scores", lambda *_: ([dict(bad)] * len(many), {"losses"}))
    found = screen(run.run_dir, run.precommit, type(chain)(**{**vars(chain), "segments": many}))
    assert (found.flagged, len(found.suspicious), len(found.details)) == ("3000", MAX_LISTED, MAX_DETAILED)
    assert len(found.to_bytes()) < 48 << 10
    json.loads(found.to_bytes())
