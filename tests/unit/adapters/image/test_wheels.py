"""Wheels are chosen for the image's Python and machine, and accepted only by their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from adapters.image import wheels
from adapters.image.wheels import LockedRequirement, fetch_wheels, marker_environment, read_lock
from adapters.process import Finished
from lab.errors import InvalidInputError, PermanentError, TransientError
from lab.image.recipe import GATEWAY, LOCAL_CLOUD

GOOD = b"the wheel that was locked"
HASH = hashlib.sha256(GOOD).hexdigest()
NAME = "demo-1.0-py3-none-any.whl"


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.lock"
    path.write_text(f"demo==1.0 \\\n    --hash=sha256:{HASH} \\\n    --hash=sha256:{'0' * 64}\n")
    return path


class Index:
    """Stands in for pip: serves the same bytes for each requested wheel."""

    def __init__(self, content: bytes = GOOD, name: str = NAME) -> None:
        self.content, self.name, self.calls = content, name, 0

    def __call__(
        self, entries: Sequence[LockedRequirement], architecture: str, folder: Path, log: object
    ) -> None:
        self.calls += 1
        folder.mkdir()
        (folder / self.name).write_bytes(self.content)


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Index:
    served = Index()
    monkeypatch.setattr(wheels, "_download_batch", served)
    return served


def names(text: str, tmp_path: Path, architecture: str = "x86_64") -> list[str]:
    path = tmp_path / "lock"
    path.write_text(
        "".join(f"{line} --hash=sha256:{'a' * 64}\n" for line in text.strip().splitlines())
    )
    return [entry.name for entry in read_lock(path, architecture)]


@pytest.mark.parametrize(
    ("marker", "architecture", "needed"),
    [
        ("python_full_version < '3.11.3'", "x86_64", True),
        ("python_full_version >= '3.12'", "x86_64", False),
        ("python_version == '3.11'", "x86_64", True),
        ("platform_machine == 'aarch64'", "arm64", True),
        ("platform_machine == 'aarch64'", "x86_64", False),
        ("platform_machine == 'x86_64'", "x86_64", True),
        ("sys_platform == 'win32'", "x86_64", False),
        ("platform_python_implementation != 'PyPy'", "x86_64", True),
    ],
)
def test_markers_should_be_evaluated_for_the_image(
    marker: str, architecture: str, needed: bool, tmp_path: Path
) -> None:
    found = names(f"demo==1.0 ; {marker}", tmp_path, architecture)
    assert found == (["demo"] if needed else [])


def test_of_two_pins_the_one_for_this_python_should_be_taken(tmp_path: Path) -> None:
    text = "numpy==2.4 ; python_full_version < '3.12'\nnumpy==2.5 ; python_full_version >= '3.12'"
    path = tmp_path / "lock"
    path.write_text("".join(f"{line} --hash=sha256:{'a' * 64}\n" for line in text.splitlines()))
    assert [str(entry.version) for entry in read_lock(path, "x86_64")] == ["2.4"]


def test_the_environment_should_not_depend_on_the_host() -> None:
    from packaging.markers import default_environment

    assert set(default_environment()) == set(marker_environment("x86_64"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("demo>=1.0 --hash=sha256:aa", "no exact version"),
        ("demo==1.* --hash=sha256:aa", "no exact version"),
        ("demo==1.0", "no SHA-256 hash"),
        ("demo @ file:///demo.whl --hash=sha256:aa", "no exact version"),
        ("==1.0 --hash=sha256:aa", "lock:1"),
    ],
)
def test_a_malformed_lock_should_be_refused(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text(f"{line}\n")
    with pytest.raises(InvalidInputError, match=message):
        read_lock(path, "x86_64")


def test_a_wheel_should_be_fetched_once(lock: Path, tmp_path: Path, index: Index) -> None:
    first = fetch_wheels(lock, "x86_64", tmp_path / "cache", print)
    second = fetch_wheels(lock, "x86_64", tmp_path / "cache", print)
    assert first == second == [tmp_path / "cache" / "x86_64" / NAME]
    assert index.calls == 1


def test_of_two_wheels_that_fit_the_best_should_be_taken(lock: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "x86_64"
    cache.mkdir(parents=True)
    best = "demo-1.0-cp311-cp311-manylinux_2_28_x86_64.whl"
    for name in (NAME, best, "demo-1.0-cp311-cp311-manylinux_2_5_x86_64.whl"):
        (cache / name).write_bytes(GOOD)
    assert fetch_wheels(lock, "x86_64", tmp_path / "cache", print) == [cache / best]


def test_a_damaged_file_in_the_cache_should_be_fetched_again(
    lock: Path, tmp_path: Path, index: Index
) -> None:
    (path,) = fetch_wheels(lock, "x86_64", tmp_path / "cache", print)
    path.write_bytes(GOOD[:-1])
    logged: list[str] = []
    assert fetch_wheels(lock, "x86_64", tmp_path / "cache", logged.append) == [path]
    assert path.read_bytes() == GOOD
    assert index.calls == 2
    assert any(NAME in line and "damaged" in line for line in logged)


def test_another_file_than_the_locked_one_should_be_refused(
    lock: Path, tmp_path: Path, index: Index
) -> None:
    index.content = b"something else"
    with pytest.raises(PermanentError, match=r"demo 1\.0"):
        fetch_wheels(lock, "x86_64", tmp_path / "cache", print)
    assert not list((tmp_path / "cache" / "x86_64").glob("*.whl"))


def test_a_wheel_for_another_machine_should_not_be_taken(
    lock: Path, tmp_path: Path, index: Index
) -> None:
    index.name = "demo-1.0-cp311-cp311-manylinux_2_17_aarch64.whl"
    with pytest.raises(PermanentError, match="x86_64"):
        fetch_wheels(lock, "x86_64", tmp_path / "cache", print)


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.\n"
            "    demo==1.0 from somewhere/demo-1.0-py3-none-any.whl#sha256=1 (from -r x):\n",
            PermanentError,
            NAME,
        ),
        (
            "WARNING: Retrying after connection broken by NewConnectionError",
            TransientError,
            "index",
        ),
        ("ERROR: HTTP error 503 while getting it", TransientError, "503"),
        ("ERROR: No matching distribution found for demo==1.0", PermanentError, "demo==1.0"),
    ],
)
def test_pips_messages_should_become_the_right_errors(
    words: str, kind: type[Exception], message: str
) -> None:
    error = wheels._download_error(Finished(1, "", words))
    assert type(error) is kind
    assert message in str(error)


@pytest.mark.parametrize("lock_file", [GATEWAY.lock, LOCAL_CLOUD.lock])
@pytest.mark.parametrize("architecture", ["x86_64", "arm64"])
def test_the_real_locks_should_fit_both_architectures(lock_file: Path, architecture: str) -> None:
    found = {entry.name for entry in read_lock(lock_file, architecture)}
    assert {"pip", "boto3"} <= found
    assert "pywin32" not in found
