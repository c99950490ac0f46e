"""Fetches the wheels of a lock, for the image's machine, which may not be this one.

Exists because images are built with no network: this module downloads all that they hold,
against the lock's hashes. It may not resolve anything, nor run or unpack what it fetches.
"""

from __future__ import annotations

import ensurepip
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import (
    InvalidWheelFilename,
    NormalizedName,
    canonicalize_name,
    parse_wheel_filename,
)
from packaging.version import Version

from adapters.process import Finished, run_child
from lab.errors import InvalidInputError, PermanentError, TransientError
from lab.image.recipe import GLIBC_MINOR, OLDEST_GLIBC_MINOR, PYTHON_VERSION

MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}

DOWNLOADS_AT_ONCE = 4
DOWNLOAD_DEADLINE_SECONDS = 900.0
_PARTIAL = ".partial-"

_NETWORK_SIGNS = re.compile(
    r"connection|timed? ?out|temporary failure|name or service|name resolution|max retries"
    r"|proxyerror|sslerror|incompleteread|\b(429|500|502|503|504)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class LockedRequirement:
    """One entry of a lock: exactly one version, and the SHA-256 of every file that it allows."""

    name: NormalizedName
    version: Version
    hashes: frozenset[str]
    requirement: Requirement

    def line(self) -> str:
        """The entry as pip reads it, without its marker, which was already evaluated."""
        hashes = " ".join(f"--hash=sha256:{digest}" for digest in sorted(self.hashes))
        return f"{self.name}=={self.version} {hashes}"


def marker_environment(architecture: str) -> dict[str, str]:
    """The values of markers inside the image. Raises for an unknown architecture."""
    return {
        "implementation_name": "cpython",
        "implementation_version": PYTHON_VERSION,
        "os_name": "posix",
        "platform_machine": _machine(architecture),
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": PYTHON_VERSION,
        "python_version": "3.11",
        "sys_platform": "linux",
    }


def read_lock(lock: Path, architecture: str) -> list[LockedRequirement]:
    """The entries of ``lock`` that the image needs, by name.

    Markers are evaluated for the image's Python and machine, never for this machine's. Raises
    :class:`InvalidInputError`, with file and line, for an entry without an exact version or
    without a hash: such a file is no lock.
    """
    environment = marker_environment(architecture)
    found: dict[str, LockedRequirement] = {}
    for number, line in _logical_lines(lock.read_text(encoding="utf-8")):
        text, *options = re.split(r"\s+(?=--)", line)
        hashes = frozenset(
            option.removeprefix("--hash=sha256:").strip()
            for option in options
            if option.startswith("--hash=sha256:")
        )
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            raise InvalidInputError(f"{lock}:{number}: {error}", "Run make lock.") from error
        pins = [part for part in requirement.specifier if part.operator == "=="]
        if len(pins) != 1 or requirement.url is not None or "*" in pins[0].version:
            raise InvalidInputError(
                f"{lock}:{number}: {requirement.name} has no exact version", "Run make lock."
            )
        if not hashes:
            raise InvalidInputError(
                f"{lock}:{number}: {requirement.name} has no SHA-256 hash", "Run make lock."
            )
        if requirement.marker is None or requirement.marker.evaluate(environment):
            name = canonicalize_name(requirement.name)
            found[name] = LockedRequirement(name, Version(pins[0].version), hashes, requirement)
    return [found[name] for name in sorted(found)]


def releases(entries: Iterable[LockedRequirement]) -> dict[str, Version]:
    """The version of each of ``entries``, by name."""
    return {entry.name: entry.version for entry in entries}


def fetch_wheels(
    lock: Path, architecture: str, cache: Path, log: Callable[[str], None]
) -> list[Path]:
    """Fetch every wheel of ``lock`` into ``cache/<architecture>``, and return the files.

    On return each file has a hash of its lock entry and a tag that the image's Python
    accepts; a damaged file in the cache was fetched again. May be called any number of times
    and by several processes at once: files appear whole. Raises :class:`TransientError` when
    the index cannot be reached, :class:`PermanentError` when a file has another hash than
    the lock says or no wheel exists, :class:`InvalidInputError` for a file that is no lock.
    """
    entries = read_lock(lock, architecture)
    folder = cache / architecture
    folder.mkdir(parents=True, exist_ok=True)
    here, missing = _look_up(entries, architecture, folder, log)
    if missing:
        log(f"Fetching {len(missing)} of {len(entries)} wheels for {architecture}")
        with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=folder) as scratch:
            _download(missing, architecture, Path(scratch), log)
            for wheel in sorted(Path(scratch).glob("*/*.whl")):
                wheel.replace(folder / wheel.name)
        here, missing = _look_up(entries, architecture, folder, log)
    if missing:
        names = ", ".join(f"{entry.name} {entry.version}" for entry in missing)
        raise PermanentError(
            f"No usable wheel for {architecture} and Python 3.11: {names}",
            "Pin a version that has one in the requirements.in next to the lock, then make lock.",
        )
    size = sum(path.stat().st_size for path in here.values())
    log(f"{len(here)} wheels for {architecture}, {size / 1e6:.0f} MB, hashes as locked")
    return [here[entry.name] for entry in entries]


def _logical_lines(text: str) -> Iterable[tuple[int, str]]:
    pending, start = "", 0
    for number, raw in enumerate(text.splitlines(), start=1):
        line = re.sub(r"(^|\s)#.*$", "", raw).strip()
        if not pending:
            start = number
        pending = f"{pending} {line.removesuffix(chr(92)).strip()}".strip()
        if not line.endswith("\\") and pending:
            yield start, pending
            pending = ""
    if pending:
        yield start, pending


def _machine(architecture: str) -> str:
    try:
        return MACHINES[architecture]
    except KeyError:
        raise InvalidInputError(
            f"Unknown architecture {architecture!r}", f"Choose one of {', '.join(MACHINES)}."
        ) from None


def _platforms(architecture: str) -> list[str]:
    machine = _machine(architecture)
    oldest = OLDEST_GLIBC_MINOR[architecture]
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(GLIBC_MINOR, oldest - 1, -1)]
    aliases = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
    return tags + [f"{alias}_{machine}" for minor, alias in aliases.items() if minor >= oldest]


def _accepted_tags(architecture: str) -> dict[Tag, int]:
    """The tags that the image's Python accepts, each with its rank: 0 is the best."""
    platforms = _platforms(architecture)
    tags = [
        *cpython_tags((3, 11), platforms=platforms),
        *compatible_tags((3, 11), interpreter="cp311", platforms=platforms),
    ]
    return {tag: rank for rank, tag in reversed(list(enumerate(tags)))}


def _look_up(
    entries: Sequence[LockedRequirement],
    architecture: str,
    folder: Path,
    log: Callable[[str], None],
) -> tuple[dict[NormalizedName, Path], list[LockedRequirement]]:
    wanted = {(entry.name, entry.version): entry for entry in entries}
    accepted = _accepted_tags(architecture)
    candidates: list[tuple[int, LockedRequirement, Path]] = []
    for path in sorted(folder.glob("*.whl")):
        try:
            name, version, _, tags = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        entry = wanted.get((name, version))
        if entry is not None and (ranks := [accepted[tag] for tag in tags if tag in accepted]):
            candidates.append((min(ranks), entry, path))
    # Of two wheels that fit, every machine takes the same one, whatever else its cache holds.
    candidates.sort(key=lambda candidate: (candidate[0], candidate[2].name), reverse=True)
    here: dict[NormalizedName, Path] = {}
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        digests = pool.map(sha256_of, (path for _, _, path in candidates))
        for (_, entry, path), digest in zip(candidates, digests, strict=True):
            if digest in entry.hashes:
                here[entry.name] = path
            else:
                log(f"{path.name} in the cache is damaged; fetching it again")
                path.unlink(missing_ok=True)
    return here, [entry for entry in entries if entry.name not in here]


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(
    entries: Sequence[LockedRequirement],
    architecture: str,
    scratch: Path,
    log: Callable[[str], None],
) -> None:
    count = min(DOWNLOADS_AT_ONCE, len(entries))
    batches = [entries[start::count] for start in range(count)]
    with ThreadPoolExecutor(count) as pool:
        waiting = [
            pool.submit(_download_batch, batch, architecture, scratch / str(number), log)
            for number, batch in enumerate(batches)
        ]
        for future in waiting:
            future.result()


def _download_batch(
    entries: Sequence[LockedRequirement],
    architecture: str,
    folder: Path,
    log: Callable[[str], None],
) -> None:
    folder.mkdir()
    requirements = folder / "requirements.txt"
    requirements.write_text("".join(f"{entry.line()}\n" for entry in entries), encoding="utf-8")
    argv = [
        *_pip(),
        *("download", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"),
        *("--no-deps", "--only-binary", ":all:", "--require-hashes", "--no-cache-dir"),
        *("--implementation", "cp", "--python-version", "3.11"),
        *("--abi", "cp311", "--abi", "abi3", "--abi", "none"),
        *(part for tag in _platforms(architecture) for part in ("--platform", tag)),
        *("--dest", str(folder), "--requirement", str(requirements)),
    ]

    def say(line: str) -> None:
        if line.startswith("Saved "):
            log(f"fetched {Path(line.removeprefix('Saved ')).name}")

    finished = run_child(
        argv,
        on_stdout=say,
        deadline=DOWNLOAD_DEADLINE_SECONDS,
        # A fixed locale, so that pip writes the messages that are searched for below.
        env={**os.environ, "LC_ALL": "C", "PIP_REQUIRE_VIRTUALENV": "0"},
    )
    if finished.code != 0:
        raise _download_error(finished)


def _pip() -> list[str]:
    """A pip to run: this Python's, or the one that came with it (uv's environments have none)."""
    bundled = sorted((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
    if bundled:
        return [sys.executable, str(bundled[-1] / "pip")]
    distribution = sorted(Path("/usr/share/python-wheels").glob("pip-*.whl"))
    if distribution:
        return [sys.executable, str(distribution[-1] / "pip")]
    found = shutil.which("pip3") or shutil.which("pip")
    if found:
        return [found]
    raise PermanentError(
        "No pip was found to fetch the image's wheels with",
        "Install Python 3.11's venv package (python3-venv on Debian).",
    )


def _download_error(finished: Finished) -> PermanentError | TransientError:
    text = f"{finished.stdout}\n{finished.stderr}"
    if "DO NOT MATCH THE HASHES" in text:
        named = re.search(r"^\s+(\S+==\S+|\S+) from (\S+)", text, re.MULTILINE)
        what = named.group(1) if named else "a wheel"
        if named and "/" in named.group(2):
            what += f" ({named.group(2).partition('#')[0].rpartition('/')[2]})"
        return PermanentError(
            f"{what} from the package index has another hash than the lock says",
            "Do not use it. If the lock is wrong, run make lock and read what changed.",
        )
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    last = (errors or lines or ["no output"])[-1]
    if _NETWORK_SIGNS.search(text):
        return TransientError(
            f"The package index did not answer: {last}", "Check the network and run this again."
        )
    return PermanentError(
        f"pip could not fetch the image's wheels (exit {finished.code}): {last}",
        "The lock may name a release that the index no longer has; run make lock.",
    )
