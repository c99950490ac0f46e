"""Terraform's own checks of ``terraform/``: format, validity, its tests, its locks."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.terraform.command import TERRAFORM, run

ROOTS = ("foundation", "lab")
REFERENCE = TERRAFORM.parent / "bench" / "seed"


def test_format(terraform_env: dict[str, str]) -> None:
    """The code should be formatted as ``terraform fmt`` has it."""
    run("fmt", "-check", "-diff", "-recursive", cwd=TERRAFORM, env=terraform_env)
    run("fmt", "-check", "-diff", cwd=REFERENCE, env=terraform_env)


def test_the_benchs_reference_is_valid(terraform_env: dict[str, str], tmp_path: Path) -> None:
    """The bench's reference should be Terraform that the provider accepts."""
    shutil.copyfile(REFERENCE / "main.tf", tmp_path / "main.tf")
    run("init", "-input=false", cwd=tmp_path, env=terraform_env)
    run("validate", "-no-color", cwd=tmp_path, env=terraform_env)


@pytest.mark.parametrize("root", ROOTS)
def test_root(root: str, terraform_env: dict[str, str]) -> None:
    """A root should initialise from its unchanged lock, be valid and pass its own tests.

    A warning would be about an attribute that the provider will remove.
    """
    cwd = TERRAFORM / root
    run("init", "-input=false", "-backend=false", "-lockfile=readonly", cwd=cwd, env=terraform_env)
    assert json.loads(run("validate", "-json", cwd=cwd, env=terraform_env))["diagnostics"] == []
    said = run("test", "-no-color", cwd=cwd, env=terraform_env)
    passed = re.search(r"Success! (\d+) passed, 0 failed", said)
    assert passed, said
    assert int(passed[1]) == sum(
        len(re.findall(r"^run ", file.read_text(), re.MULTILINE))
        for file in (cwd / "tests").glob("*.tftest.hcl")
    )


def test_roots_share_one_lock_for_all_platforms() -> None:
    """Both roots should lock the same provider, with hashes for every platform it exists for."""
    locks = {(TERRAFORM / root / ".terraform.lock.hcl").read_text() for root in ROOTS}
    assert len(locks) == 1
    (lock,) = locks
    # One package per platform, and the registry's manifest among the zh hashes.
    assert len(re.findall(r'"h1:', lock)) == 14
    assert len(re.findall(r'"zh:', lock)) == 15


def test_mocked_lab_is_the_lab_without_its_key() -> None:
    """The tests should cover every file of the lab, except those that mocks cannot serve."""
    lab = (TERRAFORM / "lab").resolve()
    files = {file.name for file in lab.glob("*.tf")}
    mocked = list((lab / "tests" / "mocked").glob("*.tf"))
    linked = {file.name for file in mocked if file.is_symlink()}
    assert files - linked == {"key.tf", "backend.tf", "providers.tf", "takeover.tf"}
    assert {file.name for file in mocked} - linked == {"key.tf"}
    assert (lab / "tests" / "variables" / "variables.tf").samefile(lab / "variables.tf")
    assert all(file.resolve().parent == lab for file in mocked if file.is_symlink())
