"""What the gateway's start leaves out: stand-ins that import the real module when it is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.image.recipe import GATEWAY

REAL = """
print("imported")
from fastapi import APIRouter
router = APIRouter()
@router.get("/memory")
def read_memory(): pass
class Thing:
    size = 3
    def __init__(self, name): self.name = name
def double(number): return 2 * number
"""
BEFORE = """
import json, deferred
deferred.defer(lambda method, path: (method, path) == ("GET", "/v1/models/x"))
from litellm.proxy.memory.endpoints import Thing, double, router
"""


def run(folder: Path, code: str) -> list[Any]:
    """The lines that ``code`` prints, each as JSON, after BEFORE."""
    memory = folder / "litellm" / "proxy" / "memory"
    memory.mkdir(parents=True, exist_ok=True)
    (memory / "endpoints.py").write_text(REAL.replace('"imported"', "'\"imported\"'"))
    (folder / "mcp").mkdir(exist_ok=True)
    (folder / "mcp" / "__init__.py").write_text("from mcp.types import Tool\n")
    (folder / "mcp" / "types.py").write_text("class Tool: pass\nclass Task(Tool): pass\n")
    done = subprocess.run(
        [sys.executable, "-P", "-c", BEFORE + code],
        env={**os.environ, "PYTHONPATH": f"{folder}:{GATEWAY.folder}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_unused_modules_are_not_imported(tmp_path: Path) -> None:
    """should work in annotations, isinstance and routers without the real module"""
    said = run(
        tmp_path,
        """
def wants(thing: Thing | None, things: "list[Thing]", of: Thing[int]): pass
print(json.dumps([isinstance(3, Thing), issubclass(int, Thing), router.routes]))
""",
    )
    assert said == [[False, False, []]]


@pytest.mark.parametrize(
    ("use", "answer"),
    [
        ("double(4)", 8),
        ("Thing('x').name", "x"),
        ("Thing.size", 3),
        ("isinstance(Thing('x'), Thing)", True),
        ("type('More', (Thing,), {})('y').name", "y"),
        ("isinstance(type('More', (Thing,), {})('y'), Thing)", True),
    ],
)
def test_a_used_name_is_the_real_one(tmp_path: Path, use: str, answer: object) -> None:
    """should be imported once, when it is called, read or derived from"""
    assert run(tmp_path, f"print(json.dumps({use}))") == ["imported", answer]


@pytest.mark.parametrize("use", ["3 in double", "list(double)"])
def test_a_constant_has_no_stand_in(tmp_path: Path, use: str) -> None:
    """should fail if a stand-in is searched, not find nothing in it"""
    code = f"""
try:
    {use}
except TypeError:
    print(json.dumps("refused"))
"""
    assert run(tmp_path, code) == ["refused"]


def test_a_package_is_real_as_a_whole(tmp_path: Path) -> None:
    """should not mix stand-ins with the real classes of a package"""
    code = """
from mcp.types import Tool
before = Tool
Tool()
from mcp.types import Task
import mcp
print(json.dumps([issubclass(Task, mcp.Tool), issubclass(Task, before), Task.__mro__[1].__name__]))
"""
    assert run(tmp_path, code) == [[True, True, "Tool"]]


def test_only_served_routes_are_built(tmp_path: Path) -> None:
    """should match with a word in the place of a parameter, and with the router's prefix"""
    code = """
from fastapi import APIRouter
router = APIRouter(prefix="/v1")
for path in ("/models/{name:path}", "/models", "/keys/{name}"):
    router.get(path)(lambda: None)
    router.post(path)(lambda: None)
print(json.dumps([[route.path, sorted(route.methods)] for route in router.routes]))
"""
    assert run(tmp_path, code) == [[["/v1/models/{name:path}", ["GET"]]]]


def test_refused_modules_are_as_if_not_installed(tmp_path: Path) -> None:
    """should make imports fail, as LiteLLM expects"""
    code = """
import deferred
for name in sorted(deferred.REFUSED):
    try:
        deferred.Deferring().find_spec(name)
    except ImportError as error:
        print(json.dumps(error.name == name))
    else:
        print(json.dumps(name))
"""
    results = run(tmp_path, code)
    assert results
    assert set(results) == {True}
