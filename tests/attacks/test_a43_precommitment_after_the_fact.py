"""A43, A08, A45: the pre-commitment, the nonce or the first line rewritten when the run is over."""

from __future__ import annotations

import json
from typing import Any

from pot.canonical import canonical_bytes


def _new_precommit(recorded: Any) -> str:
    path = recorded.run_dir / "precommit.json"
    document = json.loads(path.read_bytes())
    document["run_id"] = "ef" * 32
    path.write_bytes(canonical_bytes(document))
    return recorded.precommit.sha256()


def test_another_precommitment_is_not_the_one_of_the_start(recorded: Any) -> None:
    _new_precommit(recorded)
    assert recorded.codes()[0] == "start"


def test_a_start_made_to_fit_gives_another_seed_and_so_other_batches(recorded: Any) -> None:
    digest = _new_precommit(recorded)
    events = recorded.events()
    events[0]["precommit_sha256"] = digest
    recorded.relink(events)
    assert recorded.codes() == ["batch"]


def test_another_nonce_gives_other_batches(recorded: Any) -> None:
    events = recorded.events()
    events[0]["nonce"] = "01" * 32
    recorded.relink(events)
    assert recorded.codes() == ["batch"]


def test_a_nonce_of_ones_own_called_a_verifiers(recorded: Any) -> None:
    events = recorded.events()
    events[0]["nonce_source"] = "verifier"
    recorded.relink(events)
    assert recorded.codes() == ["start"]


def test_a_rewritten_genesis_with_its_next_pointer_fixed_breaks_the_line_after(recorded: Any) -> None:
    from pot.recording.transcript import previous_digest

    events = recorded.events()
    events[0]["nonce"] = "01" * 32
    events[1]["previous"] = previous_digest(canonical_bytes(events[0]))
    recorded.write(events)
    problems = [problem for problem in recorded.chain().problems if problem.code == "previous"]
    assert [problem.detail.split(":")[0] for problem in problems] == ["line 2"]
