"""Installs Debian's packages for what this machine lacks and set-up can provide."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence

from adapters.process import run_child
from lab.errors import PermanentError, TransientError

DEADLINE_SECONDS = 600.0

Log = Callable[[str], None]


def install(
    packages: Sequence[str],
    without_apt: PermanentError,
    log: Log,
    *,
    environment: Mapping[str, str] | None = None,
) -> None:
    """On return ``packages`` are installed. The caller is root.

    ``environment`` is for the packages' own scripts. Raises ``without_apt`` if there is no
    apt-get, and TransientError with apt-get's last words when it fails.
    """
    if shutil.which("apt-get") is None:
        raise without_apt
    log(f"Installing {' and '.join(packages)} with apt-get")
    variables = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", **(environment or {})}
    for argv in (
        ["apt-get", "update", "--quiet=2"],
        ["apt-get", "install", "--quiet=2", "--yes", "--no-install-recommends", *packages],
    ):
        done = run_child(argv, deadline=DEADLINE_SECONDS, env=variables)
        if done.code != 0:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no output"]
            raise TransientError(
                f"{' '.join(argv[:2])} failed (exit {done.code}): {lines[-1]}",
                "Check the network and apt's sources, then run this again.",
            )


def ensure_program(
    what: str, names: Sequence[str], packages: Sequence[str], by_hand: str, log: Log
) -> str:
    """The path of the first of ``names`` on PATH; ``packages`` are installed if there is none.

    May be called any number of times. ``what`` is the program in words, and ``by_hand`` says what
    to install without apt-get. Raises PermanentError that says what to install if only somebody
    else can do it, and TransientError when apt-get fails.
    """
    found = _find(names)
    if found:
        return found
    if os.geteuid() != 0:
        raise PermanentError(
            f"No {what} is here, and only root may install one",
            f"Install it (apt-get install {' '.join(packages)}), or run this as root.",
        )
    without_apt = PermanentError(
        f"No {what} is here, and there is no apt-get to install one with",
        f"Install {by_hand} by this system's own means, then run this again.",
    )
    install(packages, without_apt, log)
    found = _find(names)
    if found is None:
        raise PermanentError(
            f"The package {' and '.join(packages)} brought none of {', '.join(names)}",
            f"Put {by_hand} on PATH.",
        )
    return found


def _find(names: Sequence[str]) -> str | None:
    return next((path for path in map(shutil.which, names) if path), None)
