"""Policy files: what is accepted, what is refused, and that numbers stay exact."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from private_beacon import PrivateBeacon

from attest.cli.main import main
from attest.cli.policy import TEMPLATES
from attest.trust.keys import generate
from attest.verdict.policy import PolicyDocument, load_policy, read_policy
from pot.audit.challenges.beacon import QUICKNET, verify_round
from pot.errors import Malformed, UsageError

DEVELOPER, AUDITOR = (generate().public.pem().decode() for _ in range(2))


def document() -> dict[str, Any]:
    return {
        "version": "pot/policy/v1",
        "roles": {
            "developer": [{"name": "Acme", "public_key": DEVELOPER}],
            "auditor": [{"name": "Argus", "public_key": AUDITOR}],
        },
        "require": [
            {
                "claim": "dataset-exclusion",
                "level": "audited",
                "exclusion": {"view": "pixels/1", "records": 200, "root_blake3": "ab" * 32},
            }
        ],
        "coverage": {"forged": "0.1", "detect": "0.9"},
    }


def read(value: Any) -> Any:
    return read_policy(json.dumps(value).encode())  # YAML 1.2 contains JSON


def test_a_policy_written_by_hand() -> None:
    indented = "".join(f"        {line}\n" for line in DEVELOPER.splitlines())
    text = f"""\
version: pot/policy/v1
roles:
  developer:
    - name: Acme Research   # who trains
      public_key: |
{indented}
require:
  - claim: training-provenance
    level: committed
"""
    policy = read_policy(text.encode())
    assert [(role, name) for role, name, _ in policy.keys] == [("developer", "Acme Research")]
    assert (policy.coverage, policy.segment_limit, policy.circuits, policy.srs) == (None, None, frozenset(), {})


def test_decimals_are_exact_and_integers_may_be_plain() -> None:
    assert read(document()).coverage == (Fraction(1, 10), Fraction(9, 10))
    text = json.dumps(document()).replace('"0.1"', "0.1").encode()
    assert read_policy(text).coverage == (Fraction(1, 10), Fraction(9, 10))
    assert read(document()).document.require[0].exclusion.records == "200"


def no_developer(value: dict[str, Any]) -> None:
    value["roles"]["developer"] = []


def same_key(value: dict[str, Any]) -> None:
    value["roles"]["auditor"][0]["public_key"] = DEVELOPER


def same_name(value: dict[str, Any]) -> None:
    value["roles"]["auditor"][0]["name"] = "Acme"


def no_coverage(value: dict[str, Any]) -> None:
    del value["coverage"]


def no_pin(value: dict[str, Any]) -> None:
    del value["require"][0]["exclusion"]


def pin_elsewhere(value: dict[str, Any]) -> None:
    value["require"][0]["claim"] = "training-provenance"


def unknown_claim(value: dict[str, Any]) -> None:
    value["require"][0]["claim"] = "is-safe"


def unknown_level(value: dict[str, Any]) -> None:
    value["require"][0]["level"] = "certain"


def exclusion_of_an_inclusion(value: dict[str, Any]) -> None:
    value["require"][0]["claim"] = "dataset-inclusion"


def both_sets(value: dict[str, Any]) -> None:
    value["require"][0]["inclusion"] = value["require"][0]["exclusion"]


def labels_elsewhere(value: dict[str, Any]) -> None:
    value["require"][0]["only"] = {"licence": ["MIT"]}


def no_labels(value: dict[str, Any]) -> None:
    value["require"][0] = {"claim": "data-composition", "level": "audited", "only": {}}


def an_empty_list_of_labels(value: dict[str, Any]) -> None:
    value["require"][0] = {"claim": "data-composition", "level": "audited", "only": {"licence": []}}


def half_a_key(value: dict[str, Any]) -> None:
    value["require"][0]["exclusion"]["hiding"] = {"id": "ab" * 32}


def impossible(value: dict[str, Any]) -> None:
    value["coverage"]["forged"] = "0"


def above_one(value: dict[str, Any]) -> None:
    value["coverage"]["detect"] = "1.5"


def bad_key(value: dict[str, Any]) -> None:
    value["roles"]["developer"][0]["public_key"] = "ssh-ed25519 AAAA"


def nothing_required(value: dict[str, Any]) -> None:
    value["require"] = []


def look_alike(value: dict[str, Any]) -> None:
    value["roles"]["developer"][0]["name"] = "Аcme"  # a Cyrillic letter


@pytest.mark.parametrize(
    "change",
    [
        no_developer, same_key, same_name, no_coverage, no_pin, pin_elsewhere, unknown_claim, unknown_level, impossible,
        above_one, bad_key, nothing_required, look_alike, exclusion_of_an_inclusion, both_sets, labels_elsewhere,
        no_labels, an_empty_list_of_labels, half_a_key,
    ],
)  # fmt: skip
def test_a_policy_that_cannot_decide_is_refused(change: Any) -> None:
    value = document()
    change(value)
    with pytest.raises(Malformed):
        read(value)


def test_sets_and_labels_are_pinned() -> None:
    value = document()
    inclusion = {"view": "text/1", "records": 3, "root_blake3": "cd" * 32, "field": "content"}
    hiding = {"method": "ecvrf/1", "id": "ef" * 32}
    value["require"] += [
        {"claim": "dataset-inclusion", "level": "proved", "inclusion": {**inclusion, "hiding": hiding}},
        {"claim": "data-composition", "level": "committed", "only": {"licence": ["MIT", ""]}},
        {"claim": "data-composition", "level": "committed"},
    ]
    _, pinned, composition, _ = read(value).document.require
    assert (pinned.inclusion.field, pinned.inclusion.hiding.id) == ("content", "ef" * 32)
    assert composition.only == {"licence": ["MIT", ""]}


def test_templates_lack_only_what_they_say() -> None:
    for name, text in TEMPLATES.items():
        with pytest.raises(Malformed):
            read_policy(text.encode())
        key_lines = iter((DEVELOPER, AUDITOR))
        filled = []
        for line in text.splitlines():
            if "REPLACE with the content" in line:
                filled += ["        " + part for part in next(key_lines).splitlines()]
            else:
                filled.append(line.replace("REPLACE-", ""))
        result = "\n".join(filled)
        for words in (
            "REPLACE with records.root_blake3 of your commitment",
            "REPLACE with the SHA-256 of the reference string",
            "REPLACE with the SHA-256 of a circuit that you have looked at",
        ):
            result = result.replace(words, "ab" * 32)
        assert read_policy(result.encode()).document.require, name


def test_files_are_read_with_care(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        load_policy(tmp_path / "absent.yaml")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "absent.yaml")
    with pytest.raises(UsageError):
        load_policy(tmp_path / "link.yaml")


def two_auditors() -> dict[str, Any]:
    value = document()
    other = {"name": "Bellerophon", "public_key": generate().public.pem().decode()}
    value["roles"]["auditor"].append(other)
    return value


def test_how_many_auditors_and_what_beacon() -> None:
    policy = read(document())
    assert (policy.auditors, policy.independent, policy.beacon, policy.beacon_chain) == (1, False, None, None)
    value = two_auditors()
    value["audit"] = {"auditors": 2, "independent": True}
    value["challenge"] = {"beacon": {"chain": QUICKNET.chain_hash(), "not_before_round": 1000}}
    policy = read(value)
    assert (policy.auditors, policy.independent) == (2, True)
    assert policy.beacon is not None
    assert (policy.beacon.not_before_round, policy.beacon_chain) == ("1000", QUICKNET)


def test_a_beacon_of_ones_own_is_described_in_the_policy() -> None:
    info = PrivateBeacon().info
    value = document()
    plain = {**info.model_dump(mode="json"), "genesis_time": int(info.genesis_time), "period": int(info.period)}
    value["challenge"] = {"beacon": {"chain": info.chain_hash(), "not_before_round": 1, "info": plain}}
    found = read(value).beacon_chain
    assert found is not None
    assert found.chain_hash() == info.chain_hash()
    verify_round(PrivateBeacon().sign(3), found)


@pytest.mark.parametrize(
    "rules",
    [
        {"audit": {"auditors": 0}},
        {"audit": {"auditors": 3}},  # more than there are
        {"audit": {"auditors": 65}},
        {"audit": {"auditors": True}},
        {"audit": {"independent": "yes"}},
        {"audit": {"witnesses": 1}},
        {"challenge": {}},
        {"challenge": {"beacon": {"chain": "00" * 32, "not_before_round": 1}}},  # no description
        {"challenge": {"beacon": {"chain": QUICKNET.chain_hash()}}},
        {"challenge": {"beacon": {"chain": QUICKNET.chain_hash(), "not_before_round": 0}}},
        {"challenge": {"beacon": {"chain": QUICKNET.chain_hash(), "not_before_round": -1}}},
        {"challenge": {"beacon": {"not_before_round": 1, "chain": QUICKNET.chain_hash(), "info": {}}}},
    ],
)
def test_rules_that_nothing_can_meet_are_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        read({**two_auditors(), **rules})


def test_one_auditor_is_never_independent_of_another() -> None:
    with pytest.raises(Malformed, match="at least two identities"):
        read({**document(), "audit": {"independent": True}})


def test_what_the_rules_mean_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = {**two_auditors(), "audit": {"auditors": 2, "independent": True}, "limits": {"segment_steps": 50}}
    value["challenge"] = {"beacon": {"chain": QUICKNET.chain_hash(), "not_before_round": 1000}}
    (tmp_path / "policy.yaml").write_text(json.dumps(value))
    assert main(["policy", "check", str(tmp_path / "policy.yaml")]) == 0
    out = capsys.readouterr().out
    assert "limits    no segment is longer than 50 steps" in out
    assert "audit     different auditors: at least 2; two must have committed to the same inner states" in out
    assert f"beacon    challenges may be drawn by chain {QUICKNET.chain_hash()} from round 1000 on" in out


def test_what_is_no_policy_yet_is_not_called_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.yaml"
    assert main(["policy", "show"]) == 0
    names = capsys.readouterr()
    assert "these are names, not a policy" in names.err
    path.write_text(names.out)
    assert main(["policy", "check", str(path)]) == 2
    assert "is no policy, which has version, roles and require; pot policy show NAME" in capsys.readouterr().err
    value = document()
    value["roles"]["developer"][0]["name"] = "REPLACE-DEVELOPER"
    path.write_text(json.dumps(value))
    assert main(["policy", "check", str(path)]) == 2
    assert "the name is still 'REPLACE-DEVELOPER'; write whose key it is" in capsys.readouterr().err


def test_every_step_proved_needs_no_coverage_and_no_auditor() -> None:
    pin = {"view": "pixels/1", "records": "3", "root_blake3": "ab" * 32}
    roles = {"developer": [{"name": "Acme", "public_key": DEVELOPER}]}
    own = [
        {"claim": "steps-proven", "level": "proved", "every_step": True},
        {"claim": "step-exclusion", "level": "proved", "every_step": True, "exclusion": pin},
    ]
    document = {"version": "pot/policy/v1", "roles": roles, "require": own}
    assert PolicyDocument.from_value(document, what="policy").coverage is None
    for bent in (
        {**own[0], "level": "audited"}, {**own[0], "every_step": False}, {"claim": "steps-proven", "level": "proved"},
        {"claim": "training-provenance", "level": "proved"},
    ):  # fmt: skip
        with pytest.raises(Malformed, match="coverage"):
            PolicyDocument.from_value({**document, "require": [bent]}, what="policy")
    for bent in (
        {"claim": "step-exclusion", "level": "committed"}, {**own[0], "exclusion": pin},
        {"claim": "training-provenance", "level": "committed", "every_step": True},
    ):  # fmt: skip
        with pytest.raises(Malformed):
            PolicyDocument.from_value({**document, "require": [bent]}, what="policy")
