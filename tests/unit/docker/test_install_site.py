"""What the builder removes from the installed packages."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lab.image.recipe import GATEWAY, SHARED_FOLDER


@pytest.fixture(scope="module")
def install_site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install_site", SHARED_FOLDER / "install_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name in ("one/__init__.py", "one/data/a/x.json", "one/data/b/y.json", "one/tests/t.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("NAME = __name__\n" if path.suffix == ".py" else "{}")
    return tmp_path


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_a_rule_removes_files_that_no_other_rule_keeps(
    install_site: ModuleType, site: Path
) -> None:
    """should leave no empty folder either"""
    install_site.prune(site, "# why\n\none/data/*\n!one/data/b/*\n*/tests/*\n")
    assert files(site) == {"one", "one/__init__.py", "one/data", "one/data/b", "one/data/b/y.json"}


def test_a_rule_without_a_match_ends_the_build(install_site: ModuleType, site: Path) -> None:
    """should name it: a new release may have moved the rule's files"""
    with pytest.raises(SystemExit, match=r"two/\*"):
        install_site.prune(site, "one/data/*\ntwo/*\n")


def test_byte_code_runs_without_its_source(install_site: ModuleType, site: Path) -> None:
    """should be where the source was"""
    install_site.compile_tree(site, site)
    install_site.drop_sources(site)
    assert {"one/__init__.pyc", "one/tests/t.pyc"} <= files(site)
    assert not [name for name in files(site) if name.endswith((".py", "__pycache__"))]
    code = [sys.executable, "-c", "import one; print(one.NAME)"]
    done = subprocess.run(code, cwd=site, capture_output=True, text=True, check=True)
    assert done.stdout == "one\n"


def test_the_gateway_s_rules_have_their_reasons() -> None:
    """should be in groups that begin with a comment"""
    for group in (GATEWAY.folder / "pruned.txt").read_text().strip().split("\n\n"):
        assert group.startswith("# ")
