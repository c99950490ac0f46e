"""Provides a browser for the tests that look at Prefect's UI as a person does.

No browser is downloaded from its maker: Debian's Chromium is signed, and updated with the system.
"""

from __future__ import annotations

from workstation.packages import Log, ensure_program

#: The programs of Chromium and similar browsers, in the order in which they are tried.
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def ensure_browser(log: Log) -> str:
    """The path of a Chromium; Debian's is installed with apt-get if there is none.

    Raises what :func:`workstation.packages.ensure_program` raises.
    """
    return ensure_program("Chromium", PROGRAMS, ["chromium"], "Chromium or Google Chrome", log)
