"""The environment of Terraform's tests: no credentials, and working files of the test's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from adapters.terraform import cli_environment


@pytest.fixture
def terraform_env(tmp_path: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "TF_"))}
    return kept | cli_environment(tmp_path) | {"TF_DATA_DIR": str(tmp_path / "data")}
