#!/usr/bin/env python3
"""The main job in one command: set everything up, bring a lab up, ask every model.

Needs Python 3.11, 3.12 or 3.13 and Terraform on a Linux machine; makes its own environment first.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def main() -> int:
    """Run in the project's environment, making it if it is missing or outdated."""
    os.chdir(ROOT)
    python = ROOT / ".venv" / "bin" / "python"
    if Path(sys.prefix) != python.parent.parent:
        made = subprocess.run(["make", "--no-print-directory", "venv"], check=False)
        if made.returncode != 0:
            return made.returncode
        os.execv(python, [str(python), str(ROOT / "demo.py"), *sys.argv[1:]])  # noqa: S606
    from workstation.up import main as bring_up

    return bring_up(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
