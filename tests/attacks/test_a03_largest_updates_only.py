"""A03: the five segments with the largest updates are honest, all others lie on lines between them.

A verifier of the largest updates alone sees honest training. Screening looks at all and flags the others: by `line`,
and with Adam by `history` too.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pot.audit.screening.checks import screen


@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 2e-3), ("momentum", 0.05)])
def test_only_the_largest_updates_are_honest(tmp_path: Path, optimizer: str, rate: float) -> None:
    from forgeries import forge_largest_only, states
    from small_training import Recipe, train

    run = train(tmp_path, Recipe("", optimizer=optimizer, rate=rate, segments=30, every=5))
    honest = [state.vector() for state in states(run).values()]
    assert screen(run.run_dir, run.precommit, run.chain()).flagged == "0"
    forge_largest_only(run, keep=5)
    bent = [state.vector() for state in states(run).values()]
    lengths = [float(np.linalg.norm(b - a)) for a, b in pairwise(bent)]
    same = [
        place for place in range(30)
        if (honest[place] == bent[place]).all() and (honest[place + 1] == bent[place + 1]).all()
    ]  # fmt: skip
    assert set(np.argsort(lengths)[-5:].tolist()) <= set(same)  # the largest five hold: a verifier of those is content
    assert run.codes() == []
    found = screen(run.run_dir, run.precommit, run.chain())
    flagged = {int(number) for number in found.suspicious}
    assert len(flagged - {place + 1 for place in same}) >= 20
    assert {one.check for item in found.details for one in item.checks} >= (
        {"line", "history"} if optimizer == "adam" else {"line"}
    )
