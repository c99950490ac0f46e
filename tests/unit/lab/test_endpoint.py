"""The instructions for calling a lab work, and are the same everywhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from lab import names
from lab.endpoint import Endpoint, call_with_curl, call_with_python
from lab.settings import ROOT
from tests.unit.adapters.gateway.fake_gateway import KEY, Gateway, serving
from tests.unit.adapters.gateway.tls import LAB, certificate
from tests.unit.tasks.test_publish import report
from workstation.view import show_report

#: The documents that show how to call a lab.
DOCUMENTS = ("README.md", "docs/call.md")


def test_an_endpoint_follows_from_lab_and_address() -> None:
    """should have the lab's name at any address, and everything that a caller needs but the key"""
    where = Endpoint.of("team-a", "203.0.113.9", "CA")
    assert where.variables("/some/ca.pem") == {
        "OPENAI_BASE_URL": "https://203.0.113.9:4000/v1",
        "LAB_CA_FILE": "/some/ca.pem",
        "LAB_TLS_NAME": "gateway-lab-team-a.internal",
        "LAB_ADDRESS": "203.0.113.9",
    }


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.parametrize(
    "text", [call_with_curl("bedrock-llama"), call_with_python("bedrock-llama")]
)
def test_the_documents_say_the_same(document: str, text: str) -> None:
    """should be the same text as in the terminal and in Prefect's UI"""
    assert text in (ROOT / document).read_text(encoding="utf-8")


def test_the_terminal_breaks_no_line() -> None:
    """should be possible to copy, even from a narrow terminal"""
    out = StringIO()
    show_report(report(), "http://127.0.0.1:4200", Console(file=out, width=80))
    shown = [line.strip("│ ") for line in out.getvalue().splitlines()]
    for text in (call_with_curl("one"), call_with_python("one")):
        assert [line.strip() for line in text.splitlines() if line] == [
            line for line in shown if line and line in [t.strip() for t in text.splitlines()]
        ]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The output of `make env`, except for the port."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(certificate().trust.ca)
    where = Endpoint.of(LAB, "127.0.0.1", certificate().trust.ca)
    return {**where.variables(str(ca_file)), "OPENAI_API_KEY": KEY, "PATH": "/usr/bin:/bin"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on PATH")
def test_curl_finds_the_lab_by_its_name(environment: dict[str, str]) -> None:
    """should send the key only to the holder of the lab's certificate"""
    with serving(certificate()) as lab:
        assert "choices" in curl(lab, environment)
        assert lab.names == {names.tls_name(LAB)}
        assert lab.keys == {f"Bearer {KEY}"}
        with pytest.raises(subprocess.CalledProcessError) as caught:
            curl(lab, {**environment, "LAB_TLS_NAME": "gateway-lab-other.internal"})
        assert caught.value.returncode == 60
        assert len(lab.asked) == 1


def test_python_finds_the_lab_by_its_name(environment: dict[str, str]) -> None:
    """should do the same, with the client that applications use"""
    with serving(certificate()) as lab:
        environment["OPENAI_BASE_URL"] = f"{lab.endpoint.url}/v1"
        assert run_python(environment).stdout == "A gateway.\n"
        assert lab.names == {names.tls_name(LAB)}
        assert lab.keys == {f"Bearer {KEY}"}
        other = run_python({**environment, "LAB_TLS_NAME": "gateway-lab-other.internal"})
        assert "Hostname mismatch" in other.stderr
        assert len(lab.asked) == 1


def curl(lab: Gateway, environment: dict[str, str]) -> str:
    command = call_with_curl("one").replace(":4000", f":{lab.port}")
    done = subprocess.run(
        ["bash", "-c", command.replace("curl ", "curl -sS ")],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def run_python(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-c",
            call_with_python("one").replace("OpenAI(", "OpenAI(max_retries=0, "),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
