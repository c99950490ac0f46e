"""A stand-in for Terraform that speaks its JSON lines and keeps its calls."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from adapters.terraform import TerraformRoot

#: Makes a root that runs the stand-in, with some of its options changed.
Make = Callable[..., TerraformRoot]
LONG = timedelta(seconds=30)
SECRET = "wJalrXUtnFEMI-not-a-real-key"  # pragma: allowlist secret: made up

STAND_IN = """#!{python} -S
import json, os, pathlib, signal, sys, time
here = pathlib.Path({folder!r})
verb = sys.argv[1]
call = {{"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(), "variables": None}}
for argument in sys.argv:
    if argument.startswith("-var-file="):
        path = pathlib.Path(argument.partition("=")[2])
        call["variables"], call["path"] = json.loads(path.read_text()), str(path)
with (here / "calls").open("a") as calls:
    calls.write(json.dumps(call) + "\\n")
if verb == "version":
    print((here / "version").read_text())
    sys.exit()
if verb == "force-unlock":
    for held in "apply", "destroy":
        (here / held).unlink(missing_ok=True)
script = here / verb
if script.exists():
    code, _, lines = script.read_text().partition("\\n")
    lines, _, err = lines.partition("STDERR")
    if code == "wait":
        def leave(*_):
            print(lines, flush=True)
            sys.exit(1)
        signal.signal(signal.SIGINT, leave)
        print(json.dumps({{"@message": "waiting", "type": "apply_start"}}), flush=True)
        while True:
            time.sleep(0.02)
    print(lines)
    print(err, file=sys.stderr)
    sys.exit(int(code))
"""


def line(kind: str, message: str, **more: Any) -> str:
    """One line as `terraform -json` writes it."""
    head = {"@level": "info", "@message": message, "@module": "terraform.ui"}
    return json.dumps({**head, "@timestamp": "2030-01-31T12:00:00Z", "type": kind, **more})


def diagnostic(summary: str, detail: str = "", severity: str = "error", **more: Any) -> str:
    found = {"severity": severity, "summary": summary, "detail": detail, **more}
    return line("diagnostic", f"Error: {summary}", diagnostic=found)


OUTPUTS = line(
    "outputs",
    "Outputs: 2",
    outputs={
        "cluster_name": {"sensitive": False, "type": "string", "value": "gateway-lab-demo"},
        "subnets": {"sensitive": False, "type": ["list", "string"], "value": ["a", "b"]},
    },
)


class StandIn:
    """A `terraform` on PATH that does what a test says and records its calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log: list[str] = []
        folder.mkdir()
        program = folder / "terraform"
        program.write_text(STAND_IN.format(python=sys.executable, folder=str(folder)))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.answers_version('{"terraform_version": "1.11.4"}')

    def answers_version(self, text: str) -> None:
        (self.folder / "version").write_text(text)

    def does(self, verb: str, code: int | str, *lines: str, stderr: str = "") -> None:
        (self.folder / verb).write_text("\n".join([str(code), *lines, ""]) + "STDERR" + stderr)

    def calls(self, verb: str) -> list[dict[str, Any]]:
        path = self.folder / "calls"
        every = (
            [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []
        )
        return [call for call in every if call["argv"][0] == verb]
