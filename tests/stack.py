"""The local cloud and Prefect as a user commands them, for the tests that need them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from lab import names
from lab.adapters.aws import Cloud
from lab.report import LabReport, read_report
from lab.settings import ROOT
from workstation import localcloud, prefect
from workstation.targets import lab_home


@dataclass
class Ended:
    """A command that ended: exit code and what the terminal said."""

    code: int
    said: str


class Stack:
    """The local cloud and Prefect, as a user commands them."""

    def __init__(self) -> None:
        #: The labs that the tests made by any way; the session's end destroys what is left of them.
        self.made: set[str] = set()

    @property
    def bucket(self) -> str:
        return names.state_bucket("000000000000", localcloud.REGION)

    def prefect(self, *arguments: str, deadline: float = 420) -> Ended:
        """Run the real ``prefect`` command in the project's folder."""
        return self.command([str(Path(sys.executable).with_name("prefect")), *arguments], deadline)

    def command(self, argv: list[str], deadline: float = 420) -> Ended:
        done = subprocess.run(
            argv,
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=deadline,
            check=False,
        )
        return Ended(done.returncode, done.stdout)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PREFECT_API_URL": prefect.api_url(), "COLUMNS": "200"}

    def up(self, lab: str, **spec: Any) -> Ended:
        """``prefect deployment run 'lab-up/local'``, watched to its end."""
        self.made.add(lab)
        spec = {"lab": lab, "ttl": "30m", **spec}
        return self.prefect(
            "deployment", "run", "lab-up/local", "--params", json.dumps({"spec": spec}), "--watch"
        )

    def down(self, lab: str) -> Ended:
        """``prefect deployment run 'lab-down/local'``, watched to its end."""
        return self.prefect(
            "deployment", "run", "lab-down/local", "--param", f"lab={lab}", "--watch"
        )

    def report(self, lab: str) -> LabReport:
        report = read_report(lab_home() / "labs" / lab)
        assert report is not None, f"lab {lab} left no report"
        return report

    def session(self) -> boto3.Session:
        return boto3.Session(region_name=localcloud.REGION)

    def cloud(self) -> Cloud:
        return Cloud(self.session())

    def task_arn(self, lab: str) -> str | None:
        """The task that serves ``lab`` now."""
        name = names.resource_name(lab)
        task = self.cloud().running_task(name, name)
        return task.arn if task else None
