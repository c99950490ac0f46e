"""Terraform as its tests run it: one command, which must succeed."""

from __future__ import annotations

import subprocess
from pathlib import Path

TERRAFORM = Path(__file__).parents[2] / "terraform"
#: Terraform needs seconds; a child that hangs must not hang the run.
DEADLINE = 300


def run(*arguments: str, cwd: Path, env: dict[str, str], stdin: str | None = None) -> str:
    """Terraform's standard output; fails the test with everything it said unless it exits 0."""
    done = subprocess.run(
        ["terraform", *arguments],
        cwd=cwd,
        env=env,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, f"terraform {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout
