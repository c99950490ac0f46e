"""Gives a folder and everything below it the same time. Runs inside the image's builder.

Exists because a build also makes things by itself, such as the folder of a file that it copies,
and these have the time of the build.

Usage: set_times.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from install_site import set_times

if __name__ == "__main__":
    set_times(Path(sys.argv[1]))
