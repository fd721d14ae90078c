"""A16b: the certificate of another model under the same name."""

from __future__ import annotations

from simulated_release import Simulation, failed


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def test_one_weight_bit_is_denied_by_the_subject() -> None:
    simulation = Simulation().bend(
        "files", lambda files: files.update({"model.safetensors": flipped(files["model.safetensors"])})
    )
    report = simulation.verify()
    assert report.verdict == "DENY"
    assert {"subject", "files"} <= failed(report)
    assert report.reason.startswith("step 7, subject")


def test_a_foreign_file_is_denied() -> None:
    report = Simulation().bend("files", lambda files: files.update({"modeling.py": b"import os"})).verify()
    assert report.verdict == "DENY"
    assert {"subject", "files"} <= failed(report)


def test_a_renamed_file_is_denied_although_the_root_digest_stays() -> None:
    # names of the same order: the model-signing root digest does not see it
    def rename(files: dict[str, bytes]) -> None:
        files["config2.json"] = files.pop("config.json")

    report = Simulation().bend("files", rename).verify()
    assert report.verdict == "DENY"
    assert failed(report) - {"requirement"} == {"files"}


def test_a_file_removed_from_the_list_and_the_folder_is_another_model() -> None:
    report = Simulation().bend("files", lambda files: {"model.safetensors": files["model.safetensors"]}).verify()
    assert report.verdict == "DENY"
    assert "subject" in failed(report)
