"""The real service on a real socket: the same report as the command line, and hostile uploads. About 10 seconds."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

POT = str(Path(sys.executable).with_name("pot"))
MAX_BYTES = 4 << 20
TAR, GZIP = "application/x-tar", "application/gzip"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "")

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Server:
    port: int
    temporary: Path

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, fields, answer.read())
        finally:
            connection.close()

    def verify(self, body: Any, media_type: str = TAR) -> Answer:
        return self.ask("POST", "/v1/verify", body, content_type=media_type)


def tar(folder: Path, name: str = "release") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as writer:
        writer.add(folder, name)
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as writer:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        writer.addfile(info)
    return out.getvalue()


def bomb() -> bytes:
    engine = zlib.compressobj(9, wbits=31)
    head = tarfile.TarInfo("release/model.safetensors")
    head.size = 64 << 20
    return engine.compress(head.tobuf()) + b"".join(engine.compress(bytes(1 << 20)) for _ in range(64)) + engine.flush()


def command_line(release: Path, policy: Path) -> tuple[int, bytes]:
    ended = subprocess.run(
        [POT, "verify", str(release), "--policy", str(policy), "--json"], capture_output=True, timeout=120
    )
    return ended.returncode, ended.stdout


def without_time(report: bytes) -> bytes:
    bare, count = re.subn(rb'"time":"[^"]*"', b'"time":""', report)
    assert count == 1
    return bare


@pytest.fixture(scope="module")
def server(policy_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    temporary = tmp_path_factory.mktemp("service")
    process = subprocess.Popen(
        [POT, "serve", "--policy", str(policy_file), "--port", "0", "--max-bytes", str(MAX_BYTES)],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(temporary)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a background shell ignores it
    )  # fmt: skip
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found is not None, line + process.stderr.read()
        yield Server(int(found[1]), temporary)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert list(temporary.iterdir()) == []


def assert_problem(answer: Answer, status: int) -> None:
    assert answer.status == status, answer.body
    assert answer.media_type == "application/problem+json"
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "detail"}
    assert problem["status"] == status
    assert "pot-verify-" not in problem["detail"]
    assert "Traceback" not in problem["detail"]


def test_it_says_that_it_runs(server: Server) -> None:
    answer = server.ask("GET", "/healthz")
    assert answer.status == 200
    assert answer.json()["status"] == "ok"


def test_it_shows_the_policy_that_decides(server: Server, policy_file: Path) -> None:
    answer = server.ask("GET", "/v1/policy")
    assert (answer.status, answer.body) == (200, policy_file.read_bytes())


@pytest.mark.parametrize("media_type", [TAR, GZIP])
def test_an_honest_release_passes_with_the_bytes_of_the_command_line(
    server: Server, honest: Path, policy_file: Path, media_type: str
) -> None:
    data = tar(honest, honest.name)
    answer = server.verify(gzip.compress(data) if media_type == GZIP else data, media_type)
    code, printed = command_line(honest, policy_file)
    assert answer.status == 200, answer.body
    assert answer.media_type == "application/json"
    assert answer.json()["verdict"] == "PASS"
    assert code == 0
    assert without_time(answer.body) == without_time(printed)


def test_a_forged_release_is_denied_with_the_bytes_of_the_command_line(
    server: Server, forged: Path, policy_file: Path
) -> None:
    answer = server.verify(tar(forged, forged.name))
    code, printed = command_line(forged, policy_file)
    assert (answer.status, answer.json()["verdict"], code) == (200, "DENY", 1)
    assert without_time(answer.body) == without_time(printed)


def test_a_folder_without_claims_is_incomplete(server: Server, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    answer = server.verify(tar(tmp_path))
    assert (answer.status, answer.json()["verdict"]) == (200, "INCOMPLETE")


def test_a_body_of_unknown_length_is_taken(server: Server, honest: Path) -> None:
    data = tar(honest)
    chunks = (data[start : start + 10_000] for start in range(0, len(data), 10_000))
    assert server.verify(chunks).json()["verdict"] == "PASS"


def test_many_at_once_get_their_own_answers(server: Server, honest: Path, forged: Path) -> None:
    bodies = [tar(honest), tar(forged)] * 3
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(server.verify, bodies))
    assert [answer.json().get("verdict") for answer in answers] == ["PASS", "DENY"] * 3


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("../escaped", tarfile.REGTYPE, ""),
        ("/tmp/escaped", tarfile.REGTYPE, ""),
        ("release/../../escaped", tarfile.REGTYPE, ""),
        ("release/model.safetensors", tarfile.SYMTYPE, "/etc/passwd"),
        ("release/model.safetensors", tarfile.LNKTYPE, "/etc/passwd"),
        ("release/device", tarfile.CHRTYPE, ""),
        ("release/pipe", tarfile.FIFOTYPE, ""),
    ],
)
def test_archives_that_lead_elsewhere_are_malformed(server: Server, name: str, kind: bytes, link: str) -> None:
    assert_problem(server.verify(member(name, kind, link)), 400)


@pytest.mark.parametrize("media_type", [TAR, GZIP])
@pytest.mark.parametrize("body", [b"", b"junk", bytes(range(256)) * 100, gzip.compress(b"junk")], ids=range(4))
def test_junk_is_malformed(server: Server, body: bytes, media_type: str) -> None:
    assert_problem(server.verify(body, media_type), 400)


def test_a_truncated_archive_is_malformed(server: Server, honest: Path) -> None:
    data = tar(honest)
    assert_problem(server.verify(data[: len(data) // 2]), 400)
    assert_problem(server.verify(gzip.compress(data)[:-20], GZIP), 400)


def test_a_bomb_is_too_large(server: Server) -> None:
    data = bomb()
    assert len(data) < MAX_BYTES
    assert_problem(server.verify(data, GZIP), 413)


def test_an_oversized_body_is_refused_by_its_stated_length(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as raw:
        raw.sendall(
            b"POST /v1/verify HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\n"
            b"Content-Length: 99999999999\r\n\r\n"
        )
        assert b" 413 " in raw.recv(200)  # answered although not a byte of the body was sent


def test_an_oversized_body_of_unknown_length_is_refused(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as raw:
        raw.sendall(
            b"POST /v1/verify HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        try:
            for _ in range(2 * MAX_BYTES // 0x10000):
                raw.sendall(chunk)
        except OSError:
            pass  # the service answered and closed while more was on its way
        try:
            answered = raw.recv(200)
        except ConnectionError:
            answered = b""
    assert b" 413 " in answered or answered == b""
    assert server.ask("GET", "/healthz").status == 200


@pytest.mark.parametrize("media_type", ["application/json", "text/plain", "multipart/form-data", "", "application/zip"])
def test_other_media_types_are_unsupported(server: Server, media_type: str) -> None:
    answer = server.verify(b"x", media_type)
    assert_problem(answer, 415)
    assert TAR in answer.headers["accept-post"]


def test_a_content_encoding_is_unsupported(server: Server) -> None:
    answer = server.ask("POST", "/v1/verify", b"x", content_type=TAR, content_encoding="gzip")
    assert_problem(answer, 415)


def test_the_frameworks_own_errors_are_problems_too(server: Server) -> None:
    assert_problem(server.ask("GET", "/nowhere"), 404)
    answer = server.ask("GET", "/v1/verify")
    assert_problem(answer, 405)
    assert answer.headers["allow"] == "POST"


def test_an_upload_that_ends_early_leaves_nothing(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as raw:
        raw.sendall(
            b"POST /v1/verify HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\n"
            b"Content-Length: 1000\r\n\r\nhalf"
        )
    assert (
        server.ask("GET", "/healthz").status == 200
    )  # that the folder is gone is asserted when the service has stopped


def test_a_port_in_use_and_a_bad_policy_have_their_codes(server: Server, policy_file: Path, tmp_path: Path) -> None:
    def serve(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([POT, "serve", *words], capture_output=True, text=True, timeout=60)

    taken = serve("--policy", str(policy_file), "--port", str(server.port))
    assert taken.returncode == 4
    assert taken.stderr.count("\n") == 1
    for content in (b"", b"\xff", b"version: pot/policy/v9\n", b"a: 1\na: 2\n"):
        bad = tmp_path / "policy.yaml"
        bad.write_bytes(content)
        assert serve("--policy", str(bad)).returncode == 2
    assert serve("--policy", str(tmp_path / "absent")).returncode == 2
    assert serve().returncode == 2
    assert serve("--policy", str(policy_file), "--host", "not an address").returncode == 2
