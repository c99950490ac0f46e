"""Modules that are imported late are imported once, whole, and only when they are used."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lab.lazily import Lazily
from lab.settings import ROOT


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "slow_to_import"
    (tmp_path / f"{name}.py").write_text(
        "import pathlib, time\n"
        "with pathlib.Path(__file__).with_name('imported').open('a') as file: file.write('x')\n"
        "time.sleep(0.2)\nvalue = 7\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_threads_that_use_it_at_once_get_the_whole_module(module: str, tmp_path: Path) -> None:
    """should import it once, however many want it first"""
    lazy = Lazily(module)
    assert not (tmp_path / "imported").exists()
    Lazily.begin(module)
    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.append(lazy.value)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [7] * 8
    assert (tmp_path / "imported").read_text() == "x"


def test_no_flow_imports_what_it_may_never_use() -> None:
    """should begin without the slow ones: a person waits for a flow's first stage"""
    flows = " ".join(f"flows.{path.stem}," for path in sorted(ROOT.glob("flows/lab_*.py")))
    code = (
        f"import sys, {flows.rstrip(',')}\n"
        "print(*sorted({'openai', 'prefect_docker', 'cyclonedx'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
