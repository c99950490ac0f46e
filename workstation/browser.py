"""Provides a browser for the tests that look at Prefect's UI as a person does.

A browser's own download is not used: Debian's Chromium is signed, and is updated with the system.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

from lab.errors import PermanentError
from workstation.packages import install

#: What Chromium and its like are called, in the order in which they are taken.
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

Log = Callable[[str], None]


def ensure_browser(log: Log) -> str:
    """The path of a Chromium; Debian's is installed with apt-get where there is none.

    May be called any number of times. Raises PermanentError that says what to install where only
    somebody else can, and TransientError when apt-get fails.
    """
    found = _find()
    if found:
        return found
    if os.geteuid() != 0:
        raise PermanentError(
            "No Chromium is here, and only root may install one",
            "Install it (apt-get install chromium), or run this as root.",
        )
    install(
        ["chromium"],
        PermanentError(
            "No Chromium is here, and there is no apt-get to install one with",
            "Install Chromium or Google Chrome by this system's own means, then run this again.",
        ),
        log,
    )
    found = _find()
    if found is None:
        raise PermanentError(
            f"The package chromium brought none of {', '.join(PROGRAMS)}",
            "Put a Chromium or Google Chrome on PATH.",
        )
    return found


def _find() -> str | None:
    return next((path for path in map(shutil.which, PROGRAMS) if path), None)
