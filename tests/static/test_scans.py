"""Every file is scanned: Terraform and Dockerfiles for faults, all for secrets and spelling."""

from __future__ import annotations

import random
import re
import string
from pathlib import Path

import pytest

from tests.static.scans import (
    CHECKOV,
    HADOLINT,
    ROOT,
    SECRET,
    SPELLING,
    Exemption,
    Finding,
    checkov,
    complaints,
    exemptions,
    hadolint,
    misspellings,
    project_files,
    secrets,
)

DOCKERFILES = "*Dockerfile"

OPEN_TO_ALL = """
resource "aws_security_group" "open" {
  ingress {
    from_port   = 22
    to_port     = 22
    protocol    = "tcp"
    cidr_blocks = ["0.0.0.0/0"]
  }
}
"""


def test_terraform_and_dockerfiles_are_safe(tmp_path: Path) -> None:
    """Checkov should find only what is exempt, and still find a planted fault."""
    # The tests' Terraform is links to the lab's own, and a stand-in that nobody applies. The
    # bench's reference is as open as the setup that it stands for, and meets only the local cloud.
    files = [
        f
        for f in project_files("*.tf", DOCKERFILES)
        if "/tests/" not in f and not f.startswith("bench/seed/")
    ]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        # Line for line the same, without the comments that checkov would obey.
        (tmp_path / file).write_text((ROOT / file).read_text().replace("checkov:skip", "exempt"))
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "main.tf").write_text(OPEN_TO_ALL)
    (tmp_path / "planted" / "Dockerfile").write_text("FROM scratch\nUSER root\n")

    findings = checkov(tmp_path)

    planted = {(f.file, f.rule) for f in findings if f.file.startswith("planted/")}
    assert {("planted/main.tf", "CKV_AWS_24"), ("planted/Dockerfile", "CKV_DOCKER_8")} <= planted
    found = [f for f in findings if not f.file.startswith("planted/")]
    said = complaints(found, exemptions(ROOT, files, CHECKOV))
    assert not said, "\n".join(["", *said])


def test_dockerfiles_pass_the_linter() -> None:
    """Hadolint should find only what is exempt."""
    files = project_files(DOCKERFILES)
    said = complaints(hadolint(ROOT, files), exemptions(ROOT, files, HADOLINT))
    assert not said, "\n".join(["", *said])


def test_the_linter_finds_planted_faults(tmp_path: Path) -> None:
    """A Dockerfile that pins no version should be found, whatever its comments say."""
    (tmp_path / "Dockerfile").write_text("# hadolint ignore=DL3007\nFROM debian:latest\n")
    assert [f.rule for f in hadolint(tmp_path, ["Dockerfile"])] == ["DL3007"]


def test_no_secret_is_in_the_tree() -> None:
    """No file of the project should hold what looks like a secret, unless it is exempt."""
    files = project_files()
    said = complaints(secrets(ROOT, files), exemptions(ROOT, files, SECRET))
    assert not said, "\n".join(["", *said])


def test_no_lock_names_a_package_index() -> None:
    """Locks should work on every machine: each has its own registry, and hashes protect them."""
    locks = project_files("*.lock", "*package-lock.json")
    assert "examples/node/package-lock.json" in locks
    assert [lock for lock in locks if "://" in (ROOT / lock).read_text()] == []


def test_planted_secrets_are_found(tmp_path: Path) -> None:
    """Keys of the kinds that could occur here should be found wherever they are written."""
    letters = string.ascii_letters + string.digits
    choose = random.Random(4711).choices

    def made_up(length: int, of: str = letters) -> str:
        return "".join(choose(of, k=length))

    access = "AKIA" + made_up(16, string.ascii_uppercase)
    secret = made_up(40, letters + "/+")
    key = "sk-" + made_up(48)
    begin = "-----BEGIN RSA PRIVATE " + "KEY-----"
    planted = {
        "access.py": f'client("sts", "{access}")',
        "account.py": f'aws_secret_access_key = "{secret}"',
        "account.env": f"AWS_SECRET_ACCESS_KEY={secret}",
        "key.py": f'client = OpenAI(api_key="{key}")',
        "key.sh": f"export OPENAI_API_KEY={key}",
        "key.md": f"Call it with the key {key}, as in `Bearer {key}`.",
        "key.tf": f'  secret_string = "{key}"',
        "password.yaml": f"password: '{made_up(12)}'",
        "private.pem": f"{begin}\n{made_up(64)}\n",
    }
    for file, text in planted.items():
        (tmp_path / file).write_text(f"{text}  # pragma: allowlist " + "secret\n")
    (tmp_path / "none.py").write_text('secret = names.key_secret(lab)\nkey = "sk-..."\n')

    findings = secrets(tmp_path, [*planted, "none.py"])

    assert {f.file for f in findings} == set(planted)
    for finding in findings:
        assert not any(s in str(finding) for s in (access, secret, key))


def test_words_are_spelled_right(tmp_path: Path) -> None:
    """Codespell should find only what is exempt, and still find a planted mistake."""
    files = [f for f in project_files() if _is_text(ROOT / f)]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        # Line for line the same, without the comments that codespell would obey.
        text = (ROOT / file).read_text()
        (tmp_path / file).write_text(text.replace("codespell:ignore", "exempt"))
    word = "".join(("t", "e", "h"))
    (tmp_path / "planted.md").write_text(f"It is {word} end.\n")

    findings = misspellings(tmp_path, [*files, "planted.md"])

    found = [f for f in findings if f.file != "planted.md"]
    assert [f.rule for f in findings if f not in found] == [word]
    said = complaints(found, exemptions(ROOT, files, SPELLING))
    assert not said, "\n".join(["", *said])


def _is_text(file: Path) -> bool:
    return b"\0" not in file.read_bytes()


FOUND = Finding("a.tf", 3, 9, "CKV_1", "too open")
WHY = "it has to be"


@pytest.mark.parametrize(
    ("exempt", "said"),
    [
        ([], ["a.tf:3: CKV_1: too open"]),
        ([Exemption("a.tf", 4, frozenset({"CKV_1"}), WHY)], []),
        ([Exemption("a.tf", 9, frozenset(), WHY)], []),
        (
            [Exemption("a.tf", 4, frozenset({"CKV_1"}), "")],
            ["a.tf:4: exempt without a reason"],
        ),
        (
            [Exemption("a.tf", 4, frozenset({"CKV_1", "CKV_2"}), WHY)],
            ["a.tf:4: exempt from CKV_2, which is not found there"],
        ),
        (
            [Exemption("a.tf", 10, frozenset({"CKV_1"}), WHY)],
            [
                "a.tf:10: exempt from CKV_1, which is not found there",
                "a.tf:3: CKV_1: too open",
            ],
        ),
        (
            [Exemption("b.tf", 4, frozenset(), WHY)],
            [
                "a.tf:3: CKV_1: too open",
                "b.tf:4: exempt from secret, which is not found there",
            ],
        ),
    ],
)
def test_complaints(exempt: list[Exemption], said: list[str]) -> None:
    """Each finding should be exempt with a reason, and each exemption should match a finding."""
    assert complaints([FOUND], exempt) == said


@pytest.mark.parametrize(
    ("comment", "line", "rules", "reason"),
    [
        (CHECKOV, "  #checkov:skip=CKV_AWS_1:it has to be", {"CKV_AWS_1"}, WHY),
        (CHECKOV, "  # checkov:skip=CKV_AWS_1", {"CKV_AWS_1"}, ""),
        (HADOLINT, "# hadolint ignore=DL1,DL2 # it has to be", {"DL1", "DL2"}, WHY),
        (HADOLINT, "# hadolint ignore=DL1", {"DL1"}, ""),
        (SPELLING, "x  # codespell:ignore " + "word: it has to be", {"word"}, WHY),
        (SPELLING, "x  # codespell:ignore " + "word", {"word"}, ""),
        (SECRET, 'key = "x"  # pragma: allowlist ' + "secret: it has to be", set(), WHY),
        (SECRET, 'key = "x"  # pragma: allowlist ' + "secret", set(), ""),
    ],
)
def test_exemptions_are_read(
    comment: re.Pattern[str], line: str, rules: set[str], reason: str, tmp_path: Path
) -> None:
    """Each scanner's own form of comment should be read, with its reason or without one."""
    (tmp_path / "file").write_text(f"\n{line}\n")
    assert exemptions(tmp_path, ["file"], comment) == [
        Exemption("file", 2, frozenset(rules), reason)
    ]
