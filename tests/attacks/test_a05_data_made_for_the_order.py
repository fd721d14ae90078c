"""A05: records made so that honest training on them ends at weights of the forger's choice.

It takes the first weights and the order to make them, and both follow from a seed that covers the commitment to the
records. So they come too late: the committed records are others, or the seed is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from recorded_run import RecordedRun, honest_run
from retold_run import first_weights, retell, simulate, values_of
from toy_training import RATE

from pot.audit.replaying.replay import Replay, Replayer
from pot.canonical import canonical_bytes, sha256_hex
from pot.data.commit import commit

STEPS = 5  # of 4 records: each of the 22 records is used at most once
DISTANCE = 30_000  # a multiple of the toy's rate


@pytest.fixture
def run(tmp_path: Path) -> RecordedRun:
    return honest_run(tmp_path / "program", steps=STEPS, every=1)


def wanted(run: RecordedRun) -> list[int]:
    """Weights that no training on the committed records gives."""
    last, _ = simulate(run, values_of(run), first_weights(run))
    return [weight + DISTANCE for weight in last.weights]


def steered(run: RecordedRun) -> list[int]:
    """Values with which the run ends at `wanted`: for each weight, the last record that moves it is changed."""
    start, values = first_weights(run), values_of(run)
    honest, _ = simulate(run, values, start)
    for place in range(len(start)):
        for record in range(place, len(values), len(start)):
            tried = [value + DISTANCE // RATE * (at == record) for at, value in enumerate(values)]
            if simulate(run, tried, start)[0].weights[place] - honest.weights[place] == DISTANCE:
                values = tried  # no later record adds half of it once more: it is the last one
                break
    return values


def forged(run: RecordedRun) -> Path:
    """The run told on the records that were made for it; the file with them."""
    target, values = wanted(run), steered(run)
    found = retell(run, values=values)
    assert found[STEPS][0].weights == target
    path = run.folder / "made.jsonl"
    lines = [canonical_bytes({"id": number, "value": value}) for number, value in enumerate(values)]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def replays(run: RecordedRun, data: Path) -> list[Replay]:
    replayer = Replayer(run.run_dir, run.precommit, run.events()[0]["nonce"], [data], run.folder)
    return [replayer.segment(segment) for segment in run.chain().segments]


def test_a_run_told_anew_on_its_own_records_stays_the_same(run: RecordedRun) -> None:
    before = run.events()
    retell(run)
    assert run.events() == before


def test_the_committed_records_do_not_give_it(run: RecordedRun) -> None:
    forged(run)
    assert run.codes() == []  # the chain alone cannot see it
    assert "MISMATCH" in {replay.outcome for replay in replays(run, run.folder / "train.jsonl")}


def test_the_records_made_for_it_are_not_the_committed_ones(run: RecordedRun) -> None:
    data = forged(run)
    found = replays(run, data)
    assert {replay.outcome for replay in found} == {"REFUSED"}
    assert "no file of --data has the SHA-256" in found[0].detail


def test_without_the_comparison_with_the_commitment_it_would_pass(
    run: RecordedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = forged(run)

    def by_name(program: Any, *_: Any) -> tuple[dict[str, Path], None]:
        return {file.path: run.folder / file.path for file in program.files} | {"train.jsonl": data}, None

    monkeypatch.setattr("pot.audit.replaying.replay.program_inputs", by_name)
    assert {replay.outcome for replay in replays(run, data)} == {"MATCH"}


def test_committed_afterwards_they_come_in_another_order(run: RecordedRun) -> None:
    data = forged(run)
    path = run.run_dir / "precommit.json"
    document = json.loads(path.read_bytes())
    commitment = commit([data], "json/1", "training").commitment
    document["data"][0] |= {
        "commitment_sha256": commitment.sha256(),
        "records_root_blake3": commitment.records.root_blake3,
        "set_root_blake3": commitment.set.root_blake3,
    }
    document["program"]["data_files"][0]["sha256"] = sha256_hex(data.read_bytes())
    path.write_bytes(canonical_bytes(document))
    assert run.codes()[0] == "start"
    events = run.events()
    events[0]["precommit_sha256"] = run.precommit.sha256()
    run.restate(events)
    assert run.codes() == ["batch"]
