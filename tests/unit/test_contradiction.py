"""Another content than the run's is named with what brings the first one back; the number of processes comes first."""

from __future__ import annotations

from typing import Any

import pytest

from pot.recording.contradiction import Contradiction, contradiction

CONTENT: dict[str, Any] = {
    "checkpoint_every": "5",
    "config": {"epochs": 3, "lr": "0.1"},
    "environment": {"bits": {"threads": "1", "variables": {"OMP_NUM_THREADS": "1", "TORCH_LOGS": "a b"}}},
    "order": {"method": "feistel/1", "batch": "16"},
    "steps": "40",
}


def _with(**changes: Any) -> dict[str, Any]:
    return {**CONTENT, **changes}


def _variables(**values: str) -> dict[str, Any]:
    return {"bits": {"threads": "1", "variables": values}}


def test_the_same_content_is_no_contradiction() -> None:
    assert contradiction(CONTENT, _with(), launched=False) is None


@pytest.mark.parametrize(
    ("first", "second", "difference", "way"),
    [
        ("2", None, "layout.processes: '2', now '1'", "start 2 processes again to go on"),
        (None, "2", "layout.processes: '1', now '2'", "start 1 process again to go on"),
        ("4", "2", "layout.processes: '4', now '2'", "start 4 processes again to go on"),
    ],
)
def test_another_number_of_processes_is_named_before_what_follows_from_it(
    first: str | None, second: str | None, difference: str, way: str
) -> None:
    """`torchrun` sets a variable, and the batch of all processes together is another."""

    def described(processes: str | None, variables: dict[str, Any]) -> dict[str, Any]:
        layout = {} if processes is None else {"layout": {"processes": processes, "sharding": "replicated"}}
        return _with(**layout, environment=variables, order={"method": "feistel/1", "batch": processes or "1"})

    one, other = described(first, _variables(OMP_NUM_THREADS="1")), described(second, _variables())
    assert contradiction(one, other, launched=False) == Contradiction(difference, (way,))


def test_a_variable_is_set_again_or_unset() -> None:
    lost = _with(environment=_variables(TORCH_LOGS="a b"))
    assert contradiction(CONTENT, lost, launched=False) == Contradiction(
        "environment.bits.variables.OMP_NUM_THREADS: '1', now absent", ("set OMP_NUM_THREADS=1 again to go on",)
    )
    assert contradiction(lost, CONTENT, launched=False) == Contradiction(
        "environment.bits.variables.OMP_NUM_THREADS: absent, now '1'", ("unset OMP_NUM_THREADS to go on",)
    )
    other = _with(environment=_variables(OMP_NUM_THREADS="1", TORCH_LOGS="c"))
    found = contradiction(CONTENT, other, launched=False)
    assert found is not None
    assert found.ways == ("set TORCH_LOGS='a b' again to go on",)


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"order": {"method": "feistel/1", "batch": "32"}}, "--batch-size 16"),
        ({"steps": "41"}, "--steps 40"),
        ({"checkpoint_every": "6"}, "--checkpoint-every 5"),
        ({"config": {"epochs": 4, "lr": "0.1"}}, "--epochs 3"),
        ({"config": {"epochs": 3, "lr": "0.2"}}, None),
        ({"config": {"lr": "0.1"}}, "--epochs 3"),
        ({"order": {"method": "feistel/1", "batch": "32", "micro": "16"}}, None),
    ],
)
def test_an_option_of_pot_run_is_given_back(changes: dict[str, Any], option: str | None) -> None:
    found = contradiction(CONTENT, _with(**changes), launched=True)
    assert found is not None
    assert found.ways == (() if option is None else (f"give {option} again to go on",))
    plain = contradiction(CONTENT, _with(**changes), launched=False)
    assert plain == Contradiction(found.difference)


def test_an_option_that_was_not_given_is_not_given_back() -> None:
    found = contradiction(_with(config={"lr": "0.1"}), CONTENT, launched=True)
    assert found == Contradiction("config.epochs: absent, now 3")
