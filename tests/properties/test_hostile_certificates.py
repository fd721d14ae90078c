"""Whatever an accepted developer signs, and whatever the objects hold: a report comes out, never another error.

A change of a signed certificate, or of an object that it refers to by its new name, never leaves PASS: every byte of
evidence is bound. What is not bound would show here as a change that PASS survives.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated_release import Simulation, judge, key, sign

from attest.bundle import ReleaseBundle, SigstoreBundle
from attest.verdict.policy import Policy
from attest.verdict.verify import verify
from pot.canonical import canonical_bytes, parse, sha256_hex

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(1 - 2**53, 2**53 - 1),
    st.text(max_size=20).filter(lambda text: text.isprintable()),
    st.sampled_from(["", "0", "-1", "1e5", "99999999999999999999", "0" * 64, "f" * 64, "verifier", "MATCH", "float"]),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.sampled_from(["type", "sha256", "x"]), st.integers(0, 3), max_size=2),
)


@cache
def world() -> tuple[ReleaseBundle, Policy, dict[str, Any]]:
    simulation = Simulation()
    release = simulation.release()
    payload = SigstoreBundle.from_line(release.lines[-1], what="line").dsse_envelope.payload_bytes()
    return release, simulation.policy(), parse(payload, what="payload")


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values inside a value."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        found += places(item, (*path, name))
    return found


def changed(value: Any, path: tuple[Any, ...], new: Any, remove: bool) -> Any:
    result = copy.deepcopy(value)
    inside = result
    for name in path[:-1]:
        inside = inside[name]
    if remove:
        del inside[path[-1]]
    else:
        inside[path[-1]] = new
    return result


def signed_again(statement: Any, objects: dict[str, bytes] | None = None) -> str:
    release, policy, _ = world()
    lines = (*release.lines[:-1], sign(statement, key("developer")))
    bent = replace(release, lines=lines, objects={**release.objects, **(objects or {})})
    return verify(bent, policy, step_verifier=judge).verdict


@SETTINGS
@given(data=st.data(), new=VALUES, remove=st.booleans())
def test_no_change_of_a_certificate_survives(data: st.DataObject, new: Any, remove: bool) -> None:
    honest = world()[2]
    path = data.draw(st.sampled_from(places(honest)))
    bent = changed(honest, path, new, remove)
    verdict = signed_again(bent)
    # names of exclusion sets and datasets, the list of non-claims, and the order of lists are words, not evidence
    free = path[-1] in ("name", "nonClaims") or "nonClaims" in path
    assert bent == honest or free or verdict != "PASS", path


def renamed(value: Any, old: str, new: str) -> Any:
    return parse(canonical_bytes(value).replace(old.encode(), new.encode()), what="renamed")


@SETTINGS
@given(data=st.data())
def test_no_change_of_an_object_survives(data: st.DataObject) -> None:
    release, _, honest = world()
    text = canonical_bytes(honest).decode()
    sha256 = data.draw(st.sampled_from([name for name in sorted(release.objects) if name in text]))
    old = release.objects[sha256]
    kind = data.draw(st.sampled_from(["flip", "cut", "append", "drop", "replace"]))
    at = data.draw(st.integers(0, len(old) - 1))
    new = {
        "flip": old[:at] + bytes([old[at] ^ 1 << data.draw(st.integers(0, 7))]) + old[at + 1 :],
        "cut": old[:at],
        "append": old + data.draw(st.binary(min_size=1, max_size=9)),
        "drop": old[:at] + old[at + 1 :],
        "replace": data.draw(st.binary(max_size=40)),
    }[kind]
    statement = renamed(honest, sha256, sha256_hex(new))
    verdict = signed_again(statement, {sha256_hex(new): new})
    # the inside of a step proof is the prover's; `judge` looks at its end only. A transcript's free words (losses, file
    # names) bind through its digest: the audits are about the old one
    assert new == old or verdict != "PASS" or b"pot/step-proof/v1" in old


@SETTINGS
@given(data=st.data(), new=VALUES, remove=st.booleans())
def test_no_change_of_a_document_survives(data: st.DataObject, new: Any, remove: bool) -> None:
    """Well-formed lies: one field of a JSON object is another, and everything is named and signed anew."""
    release, _, honest = world()
    text = canonical_bytes(honest).decode()
    documents = [
        name for name, o in sorted(release.objects.items()) if name in text and o[:1] == b"{" and o[-1:] == b"}"
    ]
    sha256 = data.draw(st.sampled_from(documents))
    value = parse(release.objects[sha256], what="object")
    bent = changed(value, data.draw(st.sampled_from(places(value))), new, remove)
    made = canonical_bytes(bent)
    verdict = signed_again(renamed(honest, sha256, sha256_hex(made)), {sha256_hex(made): made})
    assert bent == value or verdict != "PASS" or value["version"] == "pot/step-proof/v1"
