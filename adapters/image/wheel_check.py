"""Checks wheels before any is installed: which files each would install, and where.

Exists because a hash proves that a file is the locked one, not that it is harmless: an attack on
a package usually shows as a start-up hook, or as a file outside the package. It may unpack nothing
to disk and run nothing.
"""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import io
import re
import stat
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Annotated

import yaml
from packaging.utils import NormalizedName, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from adapters.process import raise_if_interrupted
from lab.errors import InvalidInputError, PermanentError
from lab.spec import describe_validation

WHEELS_AT_ONCE = 2
_STRONG_HASHES = {"sha256", "sha384", "sha512"}
_UNRECORDED = {"RECORD", "RECORD.jws", "RECORD.p7s"}
_CHUNK = 1 << 20
_MOST_NAMED = 20

Package = Annotated[str, Field(min_length=1), AfterValidator(canonicalize_name)]
Reason = Annotated[str, Field(min_length=1)]


class WheelRules(BaseModel):
    """What wheels may install in addition to the package of their own name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    installs: dict[Package, tuple[str, ...]] = Field(default_factory=dict)
    startup_hooks: dict[Package, dict[str, Reason]] = Field(default_factory=dict)


def load_wheel_rules(path: Path) -> WheelRules:
    """The rules in ``path``; InvalidInputError names what is wrong with the file."""
    try:
        return WheelRules.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as error:
        said = (
            "; ".join(describe_validation(error)) if isinstance(error, ValidationError) else error
        )
        raise InvalidInputError(
            f"{path}: not the rules for wheels: {said}",
            "Correct the file; its first lines explain each field.",
        ) from error


def check_wheels(wheels: Sequence[Path], rules: WheelRules, log: Callable[[str], None]) -> None:
    """Check that each wheel installs its own package, and nothing that runs by itself.

    On return: every file is recorded in its wheel with its true hash; none is outside the places
    that the wheel may install to, is a link or a device or has a set-id bit; none is a start-up
    hook without a reason in ``rules``; no two wheels contain the same file. Raises PermanentError
    that names each wheel and file.
    """
    with ThreadPoolExecutor(WHEELS_AT_ONCE) as pool:
        looked = list(pool.map(lambda wheel: _look_into(wheel, rules), wheels))
    faults = [fault for wheel in looked for fault in wheel.faults]
    owners: dict[str, str] = {}
    for wheel in looked:
        for path in wheel.installed:
            other = owners.setdefault(path, wheel.name)
            if other != wheel.name:
                faults.append(f"{wheel.name}: {path}: {other} brings it too")
    if faults:
        more = [f"and {len(faults) - _MOST_NAMED} more"] if len(faults) > _MOST_NAMED else []
        raise PermanentError(
            "these wheels may not go into the image:\n  "
            + "\n  ".join([*faults[:_MOST_NAMED], *more]),
            "Do not install them. Look at what the files do; a file that is intended and harmless"
            " can be allowed in config/wheels.yaml with its reason.",
        )
    files = sum(len(wheel.installed) for wheel in looked)
    log(f"{len(looked)} wheels with {files} files: each installs its own package only")


class _Looked:
    """The files that one wheel would install, and what is wrong with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.installed: list[str] = []
        self.faults: list[str] = []

    def fault(self, path: str, what: str) -> None:
        self.faults.append(f"{self.name}: {path}: {what}")


def _look_into(wheel: Path, rules: WheelRules) -> _Looked:
    raise_if_interrupted("the look into the wheels")
    looked = _Looked(wheel.name)
    package, version, _, _ = parse_wheel_filename(wheel.name)
    try:
        with zipfile.ZipFile(wheel) as archive:
            entries = [entry for entry in archive.infolist() if _is_sane(entry, looked)]
            metadata = _metadata_folder(entries, package, version, looked)
            for path in _installed_paths(entries, package, looked):
                _check_place(path, package, metadata, rules, looked)
            _check_record(archive, entries, metadata, looked)
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        looked.fault("the archive", f"cannot be read: {error}")
    return looked


def _is_sane(entry: zipfile.ZipInfo, looked: _Looked) -> bool:
    name, mode = entry.filename, entry.external_attr >> 16
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or re.search(r"[\\\x00-\x1f]|^\w:", name):
        looked.fault(repr(name), "leads out of the installation folder")
        return False
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        looked.fault(name, "is neither a file nor a folder")
    if mode & (stat.S_ISUID | stat.S_ISGID):
        looked.fault(name, "has a set-user-id or set-group-id bit")
    return not entry.is_dir()


def _metadata_folder(
    entries: Iterable[zipfile.ZipInfo], package: NormalizedName, version: Version, looked: _Looked
) -> str:
    folders = sorted(
        {
            top
            for entry in entries
            if (top := entry.filename.partition("/")[0]).endswith(".dist-info")
        }
    )
    for folder in folders:
        name, _, release = folder.removesuffix(".dist-info").partition("-")
        try:
            fits = canonicalize_name(name) == package and Version(release) == version
        except InvalidVersion:
            fits = False
        if fits and len(folders) == 1:
            return folder
    looked.fault(", ".join(folders) or "*.dist-info", "is not the metadata of this one release")
    return ""


def _installed_paths(
    entries: Iterable[zipfile.ZipInfo], package: NormalizedName, looked: _Looked
) -> Iterator[str]:
    """Where each file goes, below the installation folder."""
    for entry in entries:
        top, _, rest = entry.filename.partition("/")
        place, _, inner = rest.partition("/")
        if not top.endswith(".data"):
            yield entry.filename
        elif canonicalize_name(top.partition("-")[0]) != package or not inner:
            looked.fault(entry.filename, "is outside the package")
        elif place in {"purelib", "platlib"}:
            yield inner
        elif place != "scripts":
            # Scripts are not kept; data and headers would go outside the packages.
            looked.fault(entry.filename, "is outside the package")


def _check_place(
    path: str, package: NormalizedName, metadata: str, rules: WheelRules, looked: _Looked
) -> None:
    looked.installed.append(path)
    top, _, below = path.partition("/")
    own = package.replace("-", "_")
    allowed = {own, *rules.installs.get(package, ())}
    # NAME/..., NAME.py, NAME.so, NAME.cpython-311-x86_64-linux-gnu.so
    stem = top if below else re.sub(r"(\.py|(\.[A-Za-z0-9_-]+)?\.so)$", "", top)
    if stem in {"sitecustomize", "usercustomize"} or (not below and top.endswith(".pth")):
        if path not in rules.startup_hooks.get(package, {}):
            looked.fault(path, "would run at every start of Python")
    elif stem in sys.stdlib_module_names:
        looked.fault(path, f"would replace Python's own {stem}")
    elif stem.lower() not in {name.lower() for name in allowed} and top not in {
        metadata,
        f"{own}.libs",
    }:
        looked.fault(path, f"is outside the package: {', '.join(sorted(allowed))}")


def _check_record(
    archive: zipfile.ZipFile,
    entries: Sequence[zipfile.ZipInfo],
    metadata: str,
    looked: _Looked,
) -> None:
    if not metadata:
        return
    try:
        text = archive.read(f"{metadata}/RECORD").decode()
        rows = {row[0]: (row[1], row[2]) for row in csv.reader(io.StringIO(text)) if row}
    except (KeyError, UnicodeDecodeError, IndexError, csv.Error):
        looked.fault(f"{metadata}/RECORD", "is missing or cannot be read")
        return
    unrecorded = {f"{metadata}/{name}" for name in _UNRECORDED}
    counted = Counter(entry.filename for entry in entries)
    for entry in entries:
        raise_if_interrupted("the look into the wheels")
        if counted[entry.filename] > 1:
            looked.fault(entry.filename, "is in the archive more than once")
        elif entry.filename in unrecorded:
            continue
        elif entry.filename not in rows:
            looked.fault(entry.filename, "is not in the wheel's RECORD")
        elif not _is_as_recorded(archive, entry, rows[entry.filename][0]):
            looked.fault(entry.filename, "is not the file that the wheel's RECORD names")
    for path in rows.keys() - counted.keys() - unrecorded:
        looked.fault(path, "is in the wheel's RECORD only")


def _is_as_recorded(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, recorded: str) -> bool:
    kind, _, expected = recorded.partition("=")
    if kind not in _STRONG_HASHES:
        return False
    digest = hashlib.new(kind)
    with archive.open(entry) as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
    try:
        return base64.urlsafe_b64decode(expected + "=" * (-len(expected) % 4)) == digest.digest()
    except (binascii.Error, ValueError):
        return False
