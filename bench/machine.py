"""Where and what was measured: machine, tools, commit. No name of the machine, no path."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import docker

from adapters.terraform import terraform_version
from lab.settings import ROOT


def machine() -> dict[str, str | int | float]:
    """What the figures depend on."""
    engine = docker.from_env()
    try:
        version = str(engine.version().get("Version", ""))
    finally:
        engine.close()
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "docker": version,
        "terraform": ".".join(map(str, terraform_version())),
    }


def commit() -> str:
    """The commit that is checked out, marked if the files differ from it."""
    # A scan for secrets would take a longer one for a secret.
    found = _git("rev-parse", "--short=7", "HEAD")
    if not found:
        return "unknown"
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return f"{found} with changes" if changed else found


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith(("model name", "CPU part")):
            return line.partition(":")[2].strip()
    return platform.machine()
