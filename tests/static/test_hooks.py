"""The hooks before a commit run, each with a program that the project has already."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.static.scans import DEADLINE, ROOT, SCANNERS


def test_every_hook_passes_and_downloads_nothing(tmp_path: Path) -> None:
    """The hooks should pass on all files, without pre-commit's own environment and network."""
    # `make check` needs no Terraform; tests/terraform checks its format.
    skipped = {} if shutil.which("terraform") else {"SKIP": "terraform-fmt"}
    done = subprocess.run(
        [SCANNERS / "pre-commit", "run", "--all-files", "--color=never"],
        cwd=ROOT,
        env={
            **os.environ,
            "PRE_COMMIT_HOME": str(tmp_path),
            "HTTPS_PROXY": "http://127.0.0.1:9",
            **skipped,
        },
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = [line for line in done.stdout.splitlines() if line.endswith("Passed")]
    assert len(passed) == 5 - len(skipped), done.stdout
