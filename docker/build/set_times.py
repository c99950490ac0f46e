"""Gives a folder and everything below it the one time. Runs inside the image's builder.

Exists because what a build makes by itself, such as the folder of a file that it copies, has the
time of the build.

Usage: set_times.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from install_site import set_times

if __name__ == "__main__":
    set_times(Path(sys.argv[1]))
