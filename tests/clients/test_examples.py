"""The clients of ``examples/`` call the real gateway, each as its README says.

Needs a Docker engine, Node, and the registry of npm's packages; no cloud.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from bench.containers import Gateway
from bench.stubs import WORDS
from lab.certificate import make_certificate
from lab.durations import now
from lab.models.catalog import load_catalog
from lab.settings import ROOT, Settings
from workstation.node import ensure_node

EXAMPLES = ROOT / "examples"
ALIASES = sorted(model.alias for model in load_catalog(Settings().catalog_path).choose(None))
ANSWER = "".join(WORDS)
DEADLINE = 120

#: A client's command, given the model to ask.
Command = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Node, and a copy of its example with the packages of the lock."""
    node, npm = ensure_node(lambda text: sys.stderr.write(f"· {text}\n"))
    folder = tmp_path_factory.mktemp("node") / "example"
    shutil.copytree(EXAMPLES / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
    done = subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return node, folder


@pytest.fixture(params=["python", "node"])
def command(request: pytest.FixtureRequest) -> Command:
    if request.param == "python":
        return lambda model: [sys.executable, str(EXAMPLES / "python" / "ask.py"), model]
    node, folder = request.getfixturevalue("node_folder")
    return lambda model: [node, str(folder / "ask.mjs"), model]


@pytest.fixture
def lab(running: Gateway, tmp_path: Path) -> dict[str, str]:
    """What `make env` exports for a lab."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(running.endpoint.ca)
    return {**running.endpoint.variables(str(ca_file)), "OPENAI_API_KEY": running.key}


def call(argv: list[str], lab: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a client with ``lab`` in its environment and nothing of another lab or a proxy."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OPENAI_", "LAB_")) and not name.lower().endswith("_proxy")
    }
    return subprocess.run(
        argv,
        env=kept | lab,
        # It works from any folder.
        cwd="/",
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def test_it_lists_the_models_and_gets_whole_and_streamed_answers(
    command: Command, lab: dict[str, str]
) -> None:
    """should print the lab's models and two answers of the named model"""
    done = call(command(ALIASES[-1]), lab)
    assert done.returncode == 0, done.stderr
    models, whole, streamed = done.stdout.splitlines()
    assert sorted(models.removeprefix("Models: ").split(", ")) == ALIASES
    assert whole == f"{ALIASES[-1]}: {ANSWER}"
    assert streamed == f"{ALIASES[-1]}, streamed: {ANSWER}"


@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_it_trusts_the_labs_authority_and_name_alone(
    command: Command, lab: dict[str, str], tmp_path: Path, wrong: str
) -> None:
    """should fail before it sends the key to another server, and show the key nowhere"""
    if wrong == "authority":
        at = now()
        other = make_certificate(lab["LAB_TLS_NAME"], at, at + timedelta(hours=1))
        (tmp_path / "other.pem").write_text(other.trust.ca)
        lab["LAB_CA_FILE"] = str(tmp_path / "other.pem")
    else:
        lab["LAB_TLS_NAME"] = "gateway-lab-other.internal"
    done = call(command(ALIASES[0]), lab)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "certificate" in done.stderr.lower()
    # Compared outside the assertion, because the assertion would show it.
    shown = lab["OPENAI_API_KEY"] in done.stderr
    assert not shown


def test_without_a_lab_it_says_what_to_do(command: Command) -> None:
    """should name the command that sets the environment"""
    done = call(command(ALIASES[0]), {})
    assert done.returncode == 1
    assert done.stderr.strip() == 'No lab in the environment. What to do: eval "$(make -s env)"'
