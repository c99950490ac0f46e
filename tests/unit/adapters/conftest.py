"""A Terraform whose behaviour the test chooses, and roots that run it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from adapters import terraform
from adapters.terraform import TerraformRoot
from tests.unit.adapters.fake_terraform import LONG, SECRET, Make, StandIn


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
    monkeypatch.setattr(terraform, "_MIRROR_ROOTS", (str(tmp_path / "no-mirror"),))
    return made


@pytest.fixture
def root_module(tmp_path: Path) -> Path:
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / ".terraform.lock.hcl").write_text("# locked")
    return folder


@pytest.fixture
def make_root(tmp_path: Path, stand_in: StandIn, root_module: Path) -> Make:
    def root(**changes: Any) -> TerraformRoot:
        options: dict[str, Any] = {
            "module": root_module,
            "data": tmp_path / "data",
            "backend": {"bucket": "state", "key": "labs/demo/terraform.tfstate"},
            "home": tmp_path / "home",
            "environment": {"AWS_REGION": "us-east-1", "AWS_SECRET_ACCESS_KEY": SECRET},
            "deadline": LONG,
            "log": stand_in.log.append,
        }
        return TerraformRoot(**(options | changes))

    return root
