"""Asks the public sources of known vulnerabilities about the releases of a lock, with pip-audit.

Exists because the project's own dated file knows only what somebody entered. It may not install or
resolve anything, and never decides what is refused.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters.image.wheels import LockedRequirement
from adapters.process import Finished, run_child
from lab.errors import DeadlineError
from lab.image.advisories import Finding

#: pip-audit's arguments for each source; the first one also knows malicious releases.
SOURCES: Mapping[str, tuple[str, ...]] = {
    "OSV": ("--vulnerability-service", "osv"),
    "PyPI": ("--vulnerability-service", "pypi"),
}
#: A hundred releases are a hundred small questions, one after another.
SOURCE_DEADLINE_SECONDS = 60.0
#: For each of these questions; a source that does not answer the first answers none.
SOCKET_SECONDS = 10
_LONGEST_SUMMARY = 160
# The child does not need these.
_OURS = ("AWS_", "LAB_", "PREFECT_")


@dataclass(frozen=True)
class Audit:
    """What a source answered, or why none did.

    ``source`` is None where none answered; ``silent`` gives the reason of each that was tried.
    ``unknown`` names releases that the source does not know.
    """

    source: str | None
    findings: list[Finding] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)


def audit(
    entries: Sequence[LockedRequirement],
    log: Callable[[str], None],
    *,
    sources: Mapping[str, tuple[str, ...]] = SOURCES,
    deadline: float = SOURCE_DEADLINE_SECONDS,
) -> Audit:
    """Ask the first of ``sources`` that answers about every one of ``entries``.

    A source that does not answer all of it within ``deadline`` seconds, or knows none of them, is
    skipped; it is no error if none answers. Raises only when the run is interrupted.
    """
    silent: list[str] = []
    with tempfile.TemporaryDirectory(prefix="gateway-lab-audit-") as scratch:
        requirements = Path(scratch, "requirements.txt")
        requirements.write_text("".join(f"{entry.line()}\n" for entry in entries), "utf-8")
        for source, arguments in sources.items():
            try:
                finished = _run(arguments, requirements, Path(scratch, "cache"), deadline)
            except DeadlineError:
                silent.append(f"{source}: no full answer within {deadline:.0f} s")
                continue
            answer = _answer_in(finished.stdout)
            if answer is None:
                silent.append(f"{source}: {_why(finished)}")
                continue
            result = _read(source, answer, entries, silent)
            if len(result.unknown) == len(entries):
                # A mirror of the index may serve files without their vulnerabilities.
                silent.append(f"{source}: it knows none of the {len(entries)} releases")
                continue
            log(f"{source} was asked about {len(entries)} releases: {_count(result)}")
            return result
    return Audit(None, silent=silent)


def _run(arguments: Sequence[str], requirements: Path, cache: Path, deadline: float) -> Finished:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
    return run_child(
        [
            *(sys.executable, "-m", "pip_audit", "--requirement", str(requirements)),
            *("--disable-pip", "--require-hashes", "--progress-spinner", "off"),
            # A cache of its own: an old answer would hide newer findings.
            *("--cache-dir", str(cache), "--timeout", str(SOCKET_SECONDS), "--format", "json"),
            *arguments,
        ],
        deadline=deadline,
        env={**environment, "LC_ALL": "C.UTF-8"},
    )


def _answer_in(text: str) -> list[dict[str, Any]] | None:
    """pip-audit's answer. Its exit code says nothing: findings and failures have the same one."""
    try:
        answer = json.loads(text)
    except ValueError:
        return None
    found = answer.get("dependencies") if isinstance(answer, dict) else None
    return found if isinstance(found, list) else None


def _read(
    source: str,
    answer: Sequence[Mapping[str, Any]],
    entries: Sequence[LockedRequirement],
    silent: list[str],
) -> Audit:
    answered = {found["name"]: found for found in answer if "skip_reason" not in found}
    findings = [
        Finding(
            package=name,
            version=found["version"],
            id=fault["id"],
            aliases=tuple(sorted(fault.get("aliases", ()))),
            fixed=tuple(fault.get("fix_versions", ())),
            summary=_shorten(fault.get("description", "")),
            source=source,
        )
        for name, found in answered.items()
        for fault in found.get("vulns", ())
    ]
    unknown = [f"{entry.name} {entry.version}" for entry in entries if entry.name not in answered]
    return Audit(source, findings, unknown, silent)


def _count(result: Audit) -> str:
    unknown = f", {len(result.unknown)} of them unknown to it" if result.unknown else ""
    faults = len(result.findings)
    return f"{faults or 'no'} known {'fault' if faults == 1 else 'faults'}{unknown}"


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_SUMMARY else f"{line[:_LONGEST_SUMMARY].rstrip()}..."


def _why(finished: Finished) -> str:
    """The last error that pip-audit names; after a failed request it adds one without a name."""
    lines = [line.strip() for line in finished.stderr.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*Error\b.*: ", line)]
    return _shorten((named or lines or [f"no answer (exit {finished.code})"])[-1])
