"""The scanners, what they find, and what is exempt from them.

A comment at a finding, in the scanner's own form, exempts it and says why. The scanners
run as if there were no such comment, and :func:`complaints` compares. So a comment that nothing
needs any more is found too; none of the scanners would find it.

Nothing here may reach a network.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SCANNERS = ROOT / ".venv-static" / "bin"

#: The scanners need seconds; one that hangs must not hang the run.
DEADLINE = 300

#: ``# checkov:skip=CKV_AWS_1: why``, within the resource, or anywhere in a Dockerfile.
CHECKOV = re.compile(r"checkov:skip=(?P<rules>[\w,]+):?(?P<reason>.*)")
#: ``# hadolint ignore=DL3001 # why``, on the line above.
HADOLINT = re.compile(r"hadolint\s+ignore=(?P<rules>[\w,]+)\s*#?(?P<reason>.*)")
#: Codespell's line about a word.
MISSPELLING = re.compile(r"^(?:\./)?(.+):(\d+): (\S+) ==> (.+)$", re.MULTILINE)
#: ``# codespell:ignore word: why``, on the line itself.
SPELLING = re.compile(r"(?:^|\s)#\s*codespell:ignore\s+(?P<rules>[\w,]+):?(?P<reason>.*)")
#: ``# pragma: allowlist secret: why``, on the line itself.
SECRET = re.compile(r"(?:^|\s)#\s*pragma: allowlist secret:?(?P<reason>.*)")


class Finding(NamedTuple):
    """A scanner's finding about the lines ``first`` to ``last`` of ``file``."""

    file: str
    first: int
    last: int
    rule: str
    text: str


class Exemption(NamedTuple):
    """A comment that keeps ``rules`` from counting at ``line``; none named means all."""

    file: str
    line: int
    rules: frozenset[str]
    reason: str


def project_files(*patterns: str) -> list[str]:
    """The project's own files, new ones too, but no file that git ignores and no link."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    # A file that was deleted is listed until the deletion is staged.
    return [f for f in listed if (ROOT / f).is_file() and not (ROOT / f).is_symlink()]


def checkov(tree: Path) -> list[Finding]:
    """Checkov's findings in all Terraform and Dockerfiles below ``tree``, comments ignored."""
    said = _run(
        "checkov",
        *("--directory", ".", "--framework", "terraform,dockerfile"),
        *("--skip-download", "--compact", "--output", "json"),
        cwd=tree,
    )
    findings = []
    for report in json.loads(said):
        assert not report["results"]["parsing_errors"], report["results"]["parsing_errors"]
        for check in report["results"]["failed_checks"]:
            file = check["file_path"].lstrip("/")
            first, last = check["file_line_range"]
            if report["check_type"] == "dockerfile":
                first, last = 1, len((tree / file).read_text().splitlines())
            text = f"{check['resource']}: {check['check_name']}"
            findings.append(Finding(file, first, last, check["check_id"], text))
    return findings


def hadolint(tree: Path, files: Iterable[str]) -> list[Finding]:
    """Hadolint's findings in these Dockerfiles, matters of style included, comments ignored."""
    options = ["--disable-ignore-pragma", "--failure-threshold", "style", "--format", "json"]
    return [
        # Its comment is on the line above.
        Finding(f["file"], f["line"] - 1, f["line"], f["code"], f["message"])
        for f in json.loads(_run("hadolint", *options, *files, cwd=tree))
    ]


def misspellings(tree: Path, files: Iterable[str]) -> list[Finding]:
    """The words in these files that codespell knows as mistakes, by the project's settings."""
    settings = ["--toml", str(ROOT / "pyproject.toml")]
    said = _run("codespell", *settings, *files, cwd=tree, found=65)
    return [
        Finding(file, int(line), int(line), word, f"perhaps {better}")
        for file, line, word, better in MISSPELLING.findall(said)
    ]


def secrets(tree: Path, files: Iterable[str]) -> list[Finding]:
    """What looks like a secret in these files, comments ignored; never the secret itself."""
    options = [
        # It would try a found key.
        "--no-verify",
        f"--plugin={Path(__file__).parent / 'gateway_key.py'}",
        "--disable-filter=detect_secrets.filters.allowlist.is_line_allowlisted",
        # It would not see a key that is an argument of a call.
        "--disable-filter=detect_secrets.filters.heuristic.is_indirect_reference",
        # Hashes of the provider's packages, and of npm's.
        r"--exclude-files=(\.terraform\.lock\.hcl|package-lock\.json)$",
        # An image's digest.
        "--exclude-lines=@sha256:[0-9a-f]{64}",
        # What Terraform will put there, not the value.
        r"--exclude-secrets=^(var\.|sk-\$\{)",
    ]
    found = json.loads(_run("detect-secrets", "scan", *options, *files, cwd=tree))["results"]
    return [
        Finding(file, s["line_number"], s["line_number"], s["type"], "looks like a secret")
        for file, inside in found.items()
        for s in inside
    ]


def exemptions(tree: Path, files: Iterable[str], comment: re.Pattern[str]) -> list[Exemption]:
    """The comments of this form in these files; in Markdown they are only text about them."""
    found = []
    for file in files:
        if file.endswith(".md"):
            continue
        for number, line in enumerate((tree / file).read_text(errors="replace").splitlines(), 1):
            if match := comment.search(line):
                rules = match.groupdict().get("rules") or ""
                named = frozenset(filter(None, rules.split(",")))
                found.append(Exemption(file, number, named, match["reason"].strip()))
    return found


def complaints(findings: Iterable[Finding], exempt: Iterable[Exemption]) -> list[str]:
    """A line for each finding that is not exempt, and for each exemption without reason or use."""
    findings, exempt = list(findings), list(exempt)

    def covers(e: Exemption, f: Finding) -> bool:
        return e.file == f.file and f.first <= e.line <= f.last and f.rule in (e.rules or {f.rule})

    said = [
        f"{f.file}:{f.first}: {f.rule}: {f.text}"
        for f in findings
        if not any(covers(e, f) for e in exempt)
    ]
    for e in exempt:
        used = {f.rule for f in findings if covers(e, f)}
        if not used or not e.rules <= used:
            idle = ", ".join(sorted(e.rules - used)) or "secret"
            said.append(f"{e.file}:{e.line}: exempt from {idle}, which is not found there")
        if not e.reason:
            said.append(f"{e.file}:{e.line}: exempt without a reason")
    return sorted(said)


def _run(scanner: str, *arguments: str, cwd: Path, found: int = 1) -> str:
    """The scanner's standard output; exit code ``found`` means that it found something."""
    program = SCANNERS / scanner
    assert program.exists(), f"{program} is missing: `make scanners` installs it"
    done = subprocess.run(
        [program, *arguments],
        cwd=cwd,
        # No account's key, no settings of the person who runs this, and no network.
        env={
            "PATH": f"{SCANNERS}{os.pathsep}{os.defpath}",
            "HOME": os.devnull,
            "LANG": "C.UTF-8",
            # checkov asks for a newer one at each start.
            "CKV_SKIP_PACKAGE_UPDATE_CHECK": "true",
            "HTTP_PROXY": "http://127.0.0.1:9",
            "HTTPS_PROXY": "http://127.0.0.1:9",
        },
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode in (0, found), f"{scanner} failed\n{done.stdout}\n{done.stderr}"
    return done.stdout
