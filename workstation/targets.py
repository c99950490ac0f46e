"""A target's environment, read from ``prefect.yaml``, the only place where it is written down."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml

from lab.errors import InvalidInputError
from lab.fargate import Architecture
from lab.settings import ROOT

#: The local cloud's deployer: dummies that open nothing else. Its rights are those of
#: docs/deployer-policy.json.
LOCAL_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}

#: The names that kernels give to the architectures of a lab.
_MACHINES = {
    "x86_64": Architecture.X86_64,
    "amd64": Architecture.X86_64,
    "aarch64": Architecture.ARM64,
    "arm64": Architecture.ARM64,
}


def state_home() -> Path:
    """The folder for state that is not code: LAB_HOME, or ``.lab`` in the project."""
    return Path(os.environ.get("LAB_HOME") or ROOT / ".lab").resolve()


def template_values() -> dict[str, str]:
    """What ``{{ $NAME }}`` in ``prefect.yaml`` stands for on this machine."""
    return {
        "LAB_ROOT": str(ROOT),
        "LAB_HOME": str(state_home()),
        "LAB_PYTHON": sys.executable,
        "LAB_LOCAL_ARCHITECTURE": local_architecture(),
    }


def local_architecture() -> str:
    """The architecture of a lab on this machine: LAB_ARCHITECTURE, or the machine's own.

    No flow reads it under this name, so that labs on AWS keep the default of the settings.
    """
    own = _MACHINES.get(platform.machine().lower(), Architecture.X86_64)
    return os.environ.get("LAB_ARCHITECTURE") or own.value


def target_names() -> list[str]:
    """Every target that ``lab-up`` is deployed for."""
    return sorted(_environments())


def target_environment(target: str) -> dict[str, str]:
    """The environment of the flows of ``target``; InvalidInputError for an unknown target."""
    environments = _environments()
    if target not in environments:
        raise InvalidInputError(
            f"unknown target {target!r}; allowed: {', '.join(sorted(environments))}",
            "Choose one with --target.",
        )
    values = template_values()
    return {
        name: re.sub(r"\{\{ \$(\w+) \}\}", lambda m: values[m[1]], str(value))
        for name, value in environments[target].items()
    }


@contextmanager
def environment_of(target: str, extra: Mapping[str, str]) -> Iterator[None]:
    """Within this block this process has the environment of ``target``, and ``extra``."""
    before = dict(os.environ)
    os.environ.update({**target_environment(target), **extra})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _environments() -> dict[str, dict[str, str]]:
    config = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    return {
        deployment["name"]: deployment["work_pool"]["job_variables"]["env"]
        for deployment in config["deployments"]
        if deployment["entrypoint"].startswith("flows/lab_up.py:")
    }
