"""Installs LiteLLM with its extra as plain pip does, out of a folder of wheels.

Usage: install.py WHEELS ROOT
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main(wheels: Path, root: Path) -> None:
    """Fill ``root`` with what pip would have put below ``/``, byte code included."""
    installer = next(wheels.glob("pip-*.whl"))
    (litellm,) = wheels.glob("litellm-[0-9]*.whl")
    subprocess.run(
        [
            *(sys.executable, str(installer / "pip"), "install", "--no-index", "--no-cache-dir"),
            *("--disable-pip-version-check", "--quiet", "--root-user-action=ignore"),
            # Debian's Python requires this option; the public image's ignores it.
            *("--break-system-packages", "--find-links", str(wheels), "--root", str(root)),
            f"litellm[proxy]=={litellm.name.split('-')[1]}",
        ],
        check=True,
    )


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:3]))
