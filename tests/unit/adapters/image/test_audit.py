"""The real pip-audit asks a source on this machine; a source without an answer is reported."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from adapters.image import audit as module
from adapters.image.audit import SOURCES, audit
from adapters.image.wheels import LockedRequirement, read_lock
from adapters.process import Finished
from lab.errors import DeadlineError, InterruptedWorkError

FAULT = {
    "id": "GHSA-aaaa",
    "aliases": ["CVE-2030-1"],
    "summary": "lets anybody in",
    "affected": [
        {
            "package": {"name": "demo", "ecosystem": "PyPI"},
            "ranges": [
                {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]},
            ],
        }
    ],
}


class Osv:
    """Stands in for OSV: one faulty release, and the questions that it got."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                outer.asked.append(json.loads(self.rfile.read(length)))
                faulty = outer.asked[-1]["package"]["name"] == "demo"
                body = json.dumps({"vulns": [FAULT]} if faulty else {}).encode()
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def source(self) -> tuple[str, ...]:
        return (*SOURCES["OSV"], "--osv-url", f"http://127.0.0.1:{self.server.server_port}/query")


@pytest.fixture
def osv() -> Iterator[Osv]:
    made = Osv()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture
def entries(tmp_path: Path) -> list[LockedRequirement]:
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        f"demo==1.0 --hash=sha256:{'a' * 64}\n"
        f"sound==2.0 ; platform_machine == 'x86_64' --hash=sha256:{'b' * 64}\n"
        f"elsewhere==3.0 ; sys_platform == 'win32' --hash=sha256:{'c' * 64}\n"
    )
    return read_lock(lock, "x86_64")


def answers(*finished: Finished | Exception) -> Any:
    left = list(finished)

    def run_child(argv: list[str], **_: Any) -> Finished:
        said = left.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    return run_child


def test_a_known_fault_is_found(osv: Osv, entries: list[LockedRequirement]) -> None:
    """should ask about exactly the image's packages, and report names and remedy of the fault"""
    logged: list[str] = []
    result = audit(entries, logged.append, sources={"OSV": osv.source})
    (finding,) = result.findings
    assert (finding.package, finding.version) == ("demo", "1.0")
    assert finding.names == {"GHSA-aaaa", "CVE-2030-1"}
    assert finding.fixed == ("1.1",)
    assert "lets anybody in" in str(finding)
    assert result.source == "OSV"
    assert {(a["package"]["name"], a["version"]) for a in osv.asked} == {
        ("demo", "1.0"),
        ("sound", "2.0"),
    }
    assert logged == ["OSV was asked about 2 releases: 1 known fault"]


def test_a_source_that_refuses_is_skipped(osv: Osv, entries: list[LockedRequirement]) -> None:
    """should say why, and that no source answered: silence does not mean no faults"""
    osv.status = 403
    result = audit(entries, print, sources={"OSV": osv.source})
    assert result.source is None
    assert not result.findings
    assert "OSV" in result.silent[0]
    assert "403" in result.silent[0]


def test_the_next_source_is_asked(
    entries: list[LockedRequirement], monkeypatch: pytest.MonkeyPatch
) -> None:
    """should go on after a slow source, and name the source that answered"""
    clean = [{"name": entry.name, "version": str(entry.version), "vulns": []} for entry in entries]
    answer = Finished(0, json.dumps({"dependencies": clean, "fixes": []}), "")
    monkeypatch.setattr(module, "run_child", answers(DeadlineError("too slow"), answer))
    result = audit(entries, print)
    assert result.source == "PyPI"
    assert result.silent == ["OSV: no full answer within 60 s"]


def test_a_release_that_the_source_does_not_know_is_named(
    entries: list[LockedRequirement], monkeypatch: pytest.MonkeyPatch
) -> None:
    """should be named, whether it was skipped or left out: nothing is known about it"""
    known = {"name": "sound", "version": "2.0", "vulns": []}
    for partly in ([{"name": "demo", "skip_reason": "not found"}, known], [known]):
        answer = Finished(0, json.dumps({"dependencies": partly, "fixes": []}), "")
        monkeypatch.setattr(module, "run_child", answers(answer))
        assert audit(entries, print).unknown == ["demo 1.0"]


def test_a_source_that_knows_nothing_is_skipped(
    entries: list[LockedRequirement], monkeypatch: pytest.MonkeyPatch
) -> None:
    """should not conclude that there are no faults: it does not know the packages either"""
    skipped = [{"name": entry.name, "skip_reason": "not found"} for entry in entries]
    answer = Finished(0, json.dumps({"dependencies": skipped, "fixes": []}), "")
    monkeypatch.setattr(module, "run_child", answers(answer, answer))
    result = audit(entries, print)
    assert result.source is None
    assert result.silent == [f"{source}: it knows none of the 2 releases" for source in SOURCES]


@pytest.mark.parametrize("said", ["", "no JSON", "[]", "{}", '{"dependencies": null}'])
def test_a_malformed_answer_is_no_answer(
    said: str, entries: list[LockedRequirement], monkeypatch: pytest.MonkeyPatch
) -> None:
    """should not count as an answer without findings, even with the exit code of success"""
    monkeypatch.setattr(module, "run_child", answers(*[Finished(0, said, "")] * 2))
    result = audit(entries, print)
    assert result.source is None
    assert len(result.silent) == 2


def test_an_interruption_ends_it(
    entries: list[LockedRequirement], monkeypatch: pytest.MonkeyPatch
) -> None:
    """should not count as a source without an answer"""
    monkeypatch.setattr(module, "run_child", answers(InterruptedWorkError("the run is ending")))
    with pytest.raises(InterruptedWorkError):
        audit(entries, print)


def test_no_credential_reaches_the_child(
    entries: list[LockedRequirement], monkeypatch: pytest.MonkeyPatch
) -> None:
    """should keep our credentials from a program that talks to public servers"""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    seen: list[dict[str, str]] = []

    def run_child(argv: list[str], **given: Any) -> Finished:
        seen.append(given["env"])
        return Finished(1, "", "")

    monkeypatch.setattr(module, "run_child", run_child)
    audit(entries, print)
    assert all("hush" not in environment.values() for environment in seen)
