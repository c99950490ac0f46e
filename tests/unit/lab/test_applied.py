"""When an apply may be left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.applied import Applied, fingerprint


@pytest.fixture
def module(tmp_path: Path) -> Path:
    (tmp_path / "main.tf").write_text("one")
    (tmp_path / "other.tf").write_text("two")
    (tmp_path / ".terraform.lock.hcl").write_text("lock")
    (tmp_path / "notes.md").write_text("no code")
    return tmp_path


def test_the_same_code_and_values_have_the_same_fingerprint(module: Path) -> None:
    """should not depend on the order of values, nor on files that are no code"""
    one = fingerprint(module, {"a": 1, "b": ["x"]})
    (module / "notes.md").write_text("other")
    assert fingerprint(module, {"b": ["x"], "a": 1}) == one


@pytest.mark.parametrize("name", ["main.tf", ".terraform.lock.hcl", "new.tf"])
def test_a_changed_file_changes_the_fingerprint(module: Path, name: str) -> None:
    """should depend on the code and on the providers' lock"""
    one = fingerprint(module, {})
    (module / name).write_text("changed")
    assert fingerprint(module, {}) != one


def test_text_that_moves_between_files_changes_the_fingerprint(module: Path) -> None:
    """should keep two files apart"""
    one = fingerprint(module, {})
    (module / "main.tf").write_text("on")
    (module / "other.tf").write_text("etwo")
    assert fingerprint(module, {}) != one


def test_a_changed_value_changes_the_fingerprint(module: Path) -> None:
    """should depend on every value"""
    assert fingerprint(module, {"a": 1}) != fingerprint(module, {"a": 2})


def test_it_is_valid_only_for_the_same_state() -> None:
    """should not be valid after another apply, or if the state is gone"""
    applied = Applied(fingerprint="f", state="e")
    assert applied.still_holds("f", "e")
    assert not applied.still_holds("g", "e")
    assert not applied.still_holds("f", "other")
    assert not applied.still_holds("f", None)
