"""Disputes: two transcripts of one pre-commitment are narrowed to the first step, then the first tensor, that differs.

Spec: `specs/transcript.md`, "Dispute". State digests are chained, so what differs once differs ever after: the first
differing checkpoint is found by halving. Inside that segment each party's program is run again and asked for the
digests of inner states, a number of them at a time, until one step is left; then the tensors after it are compared.
The same narrows one run against the auditor's own replay of a segment.

1. Both transcripts hold, and begin with the same pre-commitment and nonce.
2. The first checkpoint with another state digest is found by halving; transcripts alone suffice.
3. Steps that the transcripts themselves tell apart (batch, loss) bound the step from above.
4. Both runs' files are there: each is replayed from the last common state, and the inner states are compared.
5. The replayed state after the disputed checkpoint is compared with both claims: who is right on this machine.

Shows: where two accounts of one run part, and which of them this machine gives.
Does not show: who is right where the replays of the two differ by themselves: then the machines part at that step.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final, Literal

from pot.audit.party import Party, answers
from pot.audit.replaying.comparison import Components, cut, first_tensor
from pot.audit.replaying.replay import Request, committed_tensors
from pot.canonical import Count, Document, Hex32
from pot.errors import Refused, Undecided, UsageError
from pot.recording.transcript import CheckpointEvent, StepEvent

__all__ = ["ASKED", "Dispute", "dispute", "first_difference", "own_dispute", "spaced"]

ASKED: Final = 64
"""Inner states that one replay is asked for: n steps are narrowed to one in log n / log 65 replays of each party."""

_TENSORS: Final = ("model", "optimizer")
_NAME_BYTES: Final = 120
Holder = Literal["first", "second", "both", "neither", "run", "replay"]


class Dispute(Document):
    """`pot/dispute/v1`. Steps are those after which states are compared; 0 is the initial state.

    `equal_after`: the last step after which both are known to be the same (absent: not even the initial state is);
    `differs_by`: the first after which they are known to differ; both absent where nothing differs. `component` and
    `tensor`: the first that differs in the earliest state of both that is at hand. `holds`: whose claim this machine's
    replay gives, where it was replayed.
    `digests`, `replays`: how many state digests were compared, and programs run.
    """

    version: Literal["pot/dispute/v1"]
    precommit_sha256: Hex32
    transcripts: tuple[Hex32, ...]
    equal_after: Count | None = None
    differs_by: Count | None = None
    component: str | None = None
    tensor: str | None = None
    holds: Holder | None = None
    digests: Count
    replays: Count
    sentence: str


def first_difference(first: Sequence[str], second: Sequence[str]) -> tuple[int | None, int]:
    """The first place where two chains of digests differ, and how many places were compared.

    What differs once differs at every later place; so places are halved. None: they agree as far as both go.
    """
    low, high, compared = 0, min(len(first), len(second)), 0
    while low < high:
        middle = (low + high) // 2
        compared += 1
        if first[middle] == second[middle]:
            low = middle + 1
        else:
            high = middle
    return (low if low < min(len(first), len(second)) else None), compared


def dispute(first: Party, second: Party) -> Dispute:
    """Narrow two accounts of one run. Raises `Refused` where they are not of one pre-commitment and nonce."""
    if first.precommit.sha256() != second.precommit.sha256() or first.nonce() != second.nonce():
        raise Refused("dispute: the two runs have different pre-commitments or nonces; they are not one run's accounts")
    return _Narrowing(first, second).result()


class _Narrowing:
    def __init__(self, first: Party, second: Party) -> None:
        self.parties = (first, second)
        self.replays = self.digests = 0
        self.component: str | None = None
        self.tensor: str | None = None
        self.holds: Holder | None = None

    def result(self) -> Dispute:
        chains = [party.checkpoints() for party in self.parties]
        place, self.digests = first_difference(*([event.state_blake3 for event in chain] for chain in chains))
        if place is None:
            return self._document(None, None, "the two transcripts have the same states at every checkpoint")
        one, other = chains[0][place], chains[1][place]
        equal = int(chains[0][place - 1].step) if place else None
        self._compare_claims(one, other)
        by = int(one.step)
        told = self._told(equal, by)
        if any(party.replayer is None for party in self.parties):
            return self._document(equal, told, self._sentence(equal, told))
        try:
            return self._replayed(equal, by, told, (one, other))
        except Refused as error:  # files are lost, or the program does not run: the transcripts still tell this much
            return self._document(equal, told, f"{self._sentence(equal, told)}; not narrowed further: {error}")

    def _compare_claims(self, one: CheckpointEvent, other: CheckpointEvent) -> None:
        names = sorted(one.components.keys() | other.components.keys())
        self.component = next(name for name in names if one.components.get(name) != other.components.get(name))
        states = [
            committed_tensors(party.run_dir, event, self.component)
            for party, event in zip(self.parties, (one, other), strict=True)
        ]
        if states[0] is not None and states[1] is not None:
            self.tensor = first_tensor(states[0], states[1])

    def _told(self, equal: int | None, by: int) -> int:
        """The first step that the transcripts tell apart by themselves, at most `by`."""
        if equal is None:
            return by
        pairs = zip(*(self._steps(party, equal, by) for party in self.parties), strict=True)
        return next((int(one.step) for one, other in pairs if _content(one) != _content(other)), by)

    def _steps(self, party: Party, equal: int, by: int) -> list[StepEvent]:
        return [step for step in party.segment(by).steps if equal < int(step.step) <= by]

    def _replayed(
        self, equal: int | None, by: int, told: int, claims: tuple[CheckpointEvent, CheckpointEvent]
    ) -> Dispute:
        if equal is None:
            self._judge([self._initial(party) for party in self.parties], claims)
            return self._document(None, by, self._sentence(None, by))
        low, high = equal, by
        asked = spaced(low, high)
        answers = [self._ask(party, by, asked) for party in self.parties]
        ends = [answer.get(by) for answer in answers]
        self._judge(ends, claims)
        if ends[0] is None or ends[0] == ends[1]:  # one program on one machine: nothing to narrow between the two
            return self._document(equal, told, self._sentence(equal, told))
        while True:
            self.digests += len(asked)
            unlike = [step for step in asked if answers[0].get(step) != answers[1].get(step)]
            high = min([high, *unlike])
            low = max([low, *(step for step in asked if step < high)])
            if high - low <= 1:
                break
            asked = spaced(low, high)
            answers = [self._ask(party, high, asked) for party in self.parties]
        self._compare_states(high)
        return self._document(low, high, self._sentence(low, high))

    def _judge(self, states: Sequence[Components | None], claims: Sequence[CheckpointEvent]) -> None:
        """Whose claim its own replay gives; on one machine both replays are the same one."""
        if None in states:
            return
        first, second = (state == claim.components for state, claim in zip(states, claims, strict=True))
        self.holds = "both" if first and second else "first" if first else "second" if second else "neither"

    def _initial(self, party: Party) -> Components | None:
        self.replays += 1
        return party.replays().initial(party.chain.initial).initial

    def _ask(self, party: Party, by: int, steps: Sequence[int]) -> dict[int, Components]:
        self.replays += 1
        segment = party.segment(by)
        request = Request(segment.first - 1, by, segment.start_state, [step for step in steps if step != by])
        with party.replays().produced(request) as produced:
            return answers(produced, by)

    def _compare_states(self, step: int) -> None:
        """The first tensor of the two replayed states after `step`."""
        self.tensor = None
        with ExitStack() as stack:
            produced = []
            for party in self.parties:
                self.replays += 1
                segment = party.segment(step)
                request = Request(segment.first - 1, step, segment.start_state)
                produced.append(stack.enter_context(party.replays().produced(request)))
            ends = [answers(item, step).get(step, {}) for item in produced]
            names = sorted(ends[0].keys() | ends[1].keys())
            self.component = next((name for name in names if ends[0].get(name) != ends[1].get(name)), self.component)
            for name in _TENSORS:
                states = [party.replayed(item, name, step) for party, item in zip(self.parties, produced, strict=True)]
                if states[0] is not None and states[1] is not None:
                    self.tensor = first_tensor(states[0], states[1])
                    if self.tensor is not None:
                        self.component = name
                        return

    def _sentence(self, equal: int | None, by: int) -> str:
        start = (
            "the initial states differ" if equal is None else f"the same after step {equal}, another after step {by}"
        )
        if self.component is not None:
            start += f": component {self.component[:32]}"
        if self.tensor is not None:
            start += f", first differing tensor {self.tensor[:128]}"
        told = {
            "first": "a replay gives the first run's state",
            "second": "a replay gives the second run's state",
            "both": "each party's replay gives its own state: their environments part there",
            "neither": "a replay gives neither's state",
        }
        return start + (f"; {told[self.holds]}" if self.holds in told else "")

    def _document(self, equal: int | None, by: int | None, sentence: str) -> Dispute:
        return Dispute(
            version="pot/dispute/v1",
            precommit_sha256=self.parties[0].precommit.sha256(),
            transcripts=tuple(party.transcript.sha256() for party in self.parties),
            equal_after=None if equal is None else str(equal),
            differs_by=None if by is None else str(by),
            component=self.component,
            tensor=self.tensor,
            holds=self.holds,
            digests=str(self.digests),
            replays=str(self.replays),
            sentence=sentence,
        )


def own_dispute(party: Party, number: int) -> Dispute:
    """One run against the auditor's own replay of its segment `number`.

    Raises `UsageError` (a segment that it lacks, other data or code), `Refused` (its start state is none), `Undecided`
    (the replay did not come to an end).

    The committed run tells nothing of the states between its checkpoints, so the step is bounded by losses and roots.
    """
    if not 1 <= number <= len(party.chain.segments):
        raise UsageError(f"dispute: there is no segment {number}; the run has {len(party.chain.segments)}")
    if party.replays().undelivered is not None:
        raise UsageError(f"dispute: nothing was replayed: {party.replays().undelivered}; give it")
    replay = party.replays().segment(party.chain.segments[number - 1])
    difference = replay.difference
    common = {
        "version": "pot/dispute/v1",
        "precommit_sha256": party.precommit.sha256(),
        "transcripts": [party.transcript.sha256()],
        "digests": str(1 + len(party.chain.segments[number - 1].roots)),
        "replays": "1",
    }
    if replay.outcome == "MATCH":
        return Dispute.from_value(
            {**common, "holds": "run", "sentence": "the replay gives the run's own states"}, what=""
        )
    if difference is None:
        kind = Refused if replay.outcome == "MISMATCH" else Undecided  # lost files, or no time: nothing was found false
        raise kind(f"dispute: segment {number} could not be replayed: {replay.outcome}: {replay.detail}")
    value: dict[str, Any] = {
        **common,
        "equal_after": str(difference.equal_after),
        "differs_by": str(difference.by),
        "component": difference.what[:64],
        "sentence": f"{replay.outcome}: {replay.first_difference}",
    }
    if replay.outcome == "MISMATCH":
        value["holds"] = "replay"
    if replay.tensor is not None:
        value["tensor"] = cut(replay.tensor, _NAME_BYTES)
    return Dispute.from_value(value, what="dispute")


def _content(event: StepEvent) -> tuple[object, ...]:
    return event.epoch, event.position, event.records, event.batch_blake3, event.loss, event.points


def spaced(low: int, high: int) -> list[int]:
    """At most `ASKED` steps between `low` and `high`, evenly spaced, neither of them among them."""
    inner = high - low - 1
    if inner <= ASKED:
        return list(range(low + 1, high))
    return sorted({low + (at + 1) * (high - low) // (ASKED + 1) for at in range(ASKED)} - {low, high})
