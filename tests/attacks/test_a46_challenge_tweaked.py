"""A46, A47: a challenge steered away from the bad segment, and a challenged segment that is lost."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from pot.audit.challenges.challenge import Challenge, check_challenge, choose, new_challenge
from pot.errors import Malformed, Refused


def _challenge(recorded: Any, **options: Any) -> Challenge:
    chain = recorded.chain()
    return new_challenge(
        recorded.precommit.sha256(),
        recorded.transcript.sha256(),
        len(chain.segments),
        forged="0.2",
        detect="0.5",
        **options,
    )


def _check(recorded: Any, challenge: Challenge) -> None:
    check_challenge(challenge, recorded.precommit.sha256(), recorded.transcript.sha256(), 6, 30)


def _bent(challenge: Challenge, **fields: Any) -> Challenge:
    return Challenge.from_value({**challenge.model_dump(mode="json"), **fields}, what="challenge")


def test_an_honest_challenge_passes(recorded: Any) -> None:
    _check(recorded, _challenge(recorded))
    _check(recorded, _challenge(recorded, nonce_source="prover"))


def test_other_units_than_the_nonce_gives(recorded: Any) -> None:
    challenge = _challenge(recorded)
    other = [str(n) for n in range(1, 7) if str(n) not in challenge.chosen][: len(challenge.chosen)]
    with pytest.raises(Refused, match="do not follow from the nonce"):
        _check(recorded, _bent(challenge, chosen=other))


def test_a_nonce_tried_until_it_suits_cannot_be_called_prover_derived(recorded: Any) -> None:
    nonce = "07" * 32
    challenge = _challenge(recorded, nonce=nonce)
    with pytest.raises(Refused, match="must be the one derived from the transcript"):
        _check(recorded, _bent(challenge, nonce_source="prover"))


def test_fewer_units_than_the_fractions_need(recorded: Any) -> None:
    challenge = _challenge(recorded)
    fewer = choose(challenge.transcript_sha256, "segment", challenge.nonce, 6, 1)
    with pytest.raises(Refused, match="1 units sampled, its own fractions need"):
        _check(recorded, _bent(challenge, sample="1", chosen=list(fewer)))


def test_a_smaller_population(recorded: Any) -> None:
    with pytest.raises(Refused, match="population 5, the transcript has 6"):
        _check(recorded, _bent(_challenge(recorded), population="5"))


def test_a_challenge_to_another_transcript(recorded: Any) -> None:
    challenge = _challenge(recorded)
    recorded.bend_tensors(15, "model", lambda values: [values[0] + 1, *values[1:]])
    with pytest.raises(Refused, match="transcript_sha256"):
        _check(recorded, challenge)


def test_a_free_field_in_the_transcript_is_refused(recorded: Any) -> None:
    events = recorded.events()
    events[3]["salt"] = "1"
    recorded.relink(events)
    with pytest.raises(Malformed, match="salt"):
        recorded.transcript  # noqa: B018


def test_a_lost_checkpoint_is_refused_and_not_passed_over(recorded: Any) -> None:
    shutil.rmtree(recorded.run_dir / "checkpoints/step-000010")
    replay = recorded.replay(3)
    assert replay.outcome == "REFUSED"
    assert "missing" in replay.detail
    assert recorded.replay(2).outcome == "MATCH"  # its end state is known by digest


def test_a_bent_checkpoint_file_is_refused(recorded: Any) -> None:
    path = recorded.run_dir / "checkpoints/step-000010/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    replay = recorded.replay(3)
    assert replay.outcome == "REFUSED"
    assert "not the committed file" in replay.detail
