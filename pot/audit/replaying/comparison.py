"""Comparison: what a replay gave against what was committed, in the order in which it happened.

Spec: `specs/transcript.md`, "Audit". Batches are compared over all steps first, because no environment changes them;
then losses, the roots inside the segment and its end state in step order, so that the first difference bounds the step
at which the two went apart.

Shows: that steps, roots and end state are the committed ones bit by bit, or between which steps they part.
Does not show: why they part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

from pot.commitments.state import TensorEntry
from pot.recording.checking.chain import Segment
from pot.recording.transcript import StepEvent

__all__ = [
    "Components", "Difference", "PointsOutcome", "compare", "compare_components", "compare_points", "cut",
    "end_difference", "first_tensor", "is_components", "result_roots", "result_steps",
]  # fmt: skip

PointsOutcome = Literal["MATCH", "MISMATCH", "NOT_CHECKED"]

Components = Mapping[str, str]
"""The digest of each component of a state."""

_BATCH_FIELDS = ("step", "epoch", "position", "records", "batch_blake3")
_BATCH_COMPONENTS = frozenset({"cursor"})


@dataclass(frozen=True)
class Difference:
    """Where a replay and the committed run part.

    `what`: the field or component. `equal_after`: the last step after which the states are known to be the same.
    `by`: the first step after which they are known to differ. `everywhere`: no environment explains it.
    """

    what: str
    sentence: str
    equal_after: int
    by: int
    everywhere: bool = False


def result_steps(result: Mapping[str, Any], count: int) -> list[dict[str, Any]] | None:
    """The replayed steps, if there are as many as wanted and each is an object."""
    steps = result.get("steps")
    if not isinstance(steps, list) or len(steps) != count or not all(isinstance(item, dict) for item in steps):
        return None
    return steps


def result_roots(result: Mapping[str, Any]) -> dict[int, dict[str, str]]:
    """The digests of inner states by step; what has another form is left out."""
    roots = result.get("roots")
    if not isinstance(roots, dict):
        return {}
    return {
        int(step): found
        for step, found in roots.items()
        if step.isascii() and step.isdigit() and len(step) < 16 and is_components(found)
    }


def is_components(value: Any) -> TypeGuard[dict[str, str]]:
    """Whether a value from a program is an object of strings."""
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def compare(segment: Segment, result: Mapping[str, Any]) -> Difference | None:
    """The first difference of a segment's replay, None where every bit is the committed one."""
    before = segment.first - 1
    steps, end = result_steps(result, len(segment.steps)), result.get("components")
    if steps is None or not isinstance(end, dict):
        return Difference("steps", "the replay gave another number of steps", before, segment.last, everywhere=True)
    pairs = list(zip(segment.steps, steps, strict=True))
    for event, found in pairs:
        for name in _BATCH_FIELDS:
            if getattr(event, name) != found.get(name):
                return _step_difference(event, name, found, before, everywhere=True)
    roots = {int(root.step): root.components for root in segment.roots} | {segment.last: segment.end_state.components}
    replayed = {**result_roots(result), segment.last: end}
    equal = before
    for event, found in pairs:
        if event.loss != found.get("loss"):
            return _step_difference(event, "loss", found, equal)
        step = int(event.step)
        if step in roots:
            difference = compare_components(roots[step], replayed.get(step), equal, step)
            if difference is not None:
                return difference
            equal = step
    return None


def _step_difference(
    event: StepEvent, name: str, found: Mapping[str, Any], equal: int, everywhere: bool = False
) -> Difference:
    committed, other = getattr(event, name), found.get(name)
    sentence = f"step {event.step}: {name} committed {committed}, replayed {cut(str(other), 80)}"
    # a loss is computed before the step's update: it may tell of a state that differs already
    return Difference(name, sentence, equal, int(event.step), everywhere)


def compare_components(
    committed: Components, found: Components | None, equal_after: int, step: int
) -> Difference | None:
    """The first component of the state after `step` that differs."""
    if found is None:
        return Difference("roots", f"after step {step}: the replay gave no digests", equal_after, step, True)
    differing = [name for name in sorted(committed.keys() | found.keys()) if committed.get(name) != found.get(name)]
    if not differing:
        return None
    name = differing[0]
    return Difference(
        name,
        f"after step {step}: component {cut(name, 32)} differs",
        equal_after,
        step,
        everywhere=not _BATCH_COMPONENTS.isdisjoint(differing),
    )


def end_difference(difference: Difference, segment: Segment) -> str:
    """The sentence, with the steps between which the states part where inner roots narrow them."""
    if difference.equal_after >= segment.first:
        return f"{difference.sentence}; the state after step {difference.equal_after} was still the committed one"
    return difference.sentence


def cut(text: str, size: int) -> str:
    """The beginning of a text, of at most `size` bytes as a document has it; what cannot be printed becomes `?`.

    Names are the prover's, and a statement is capped in bytes: escapes and wide characters count as what they take.
    """
    found: list[str] = []
    for character in text[:size]:
        shown = character if character.isprintable() else "?"
        size -= len(shown.encode()) + (shown in '"\\')
        if size < 0:
            break
        found.append(shown)
    return "".join(found)


def first_tensor(committed: Sequence[TensorEntry], found: Sequence[TensorEntry]) -> str | None:
    """The name of the first tensor that differs in type, shape or bytes, or is in one state only."""
    ours, theirs = ({entry.name: entry for entry in state} for state in (committed, found))
    for name in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(name), theirs.get(name)
        if one is None or other is None or (one.dtype, one.shape) != (other.dtype, other.shape):
            return name
        if bytes(one.data) != bytes(other.data):
            return name
    return None


def compare_points(segment: Segment, result: Mapping[str, Any]) -> PointsOutcome:
    """Whether the replayed KZG points of the steps are the committed ones."""
    steps = result_steps(result, len(segment.steps))
    if steps is None:
        return "NOT_CHECKED"
    pairs = [
        (event.points.model_dump(mode="json") if event.points is not None else None, found.get("points"))
        for event, found in zip(segment.steps, steps, strict=True)
    ]
    if any(committed is None or found is None for committed, found in pairs):
        return "NOT_CHECKED"
    return "MATCH" if all(committed == found for committed, found in pairs) else "MISMATCH"
