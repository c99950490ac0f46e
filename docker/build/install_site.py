"""Installs the wheels of the build context into one folder. Runs inside the image's builder.

Exists so that an image is built with no network, no package manager and no shell, and with
equal files from equal inputs. It may install nothing that the lock does not name by hash.

Usage: install_site.py WHEELS LOCK TARGET
"""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

# Every file's time, so that two builds of the same wheels are equal.
TIMESTAMP = 1_700_000_000
INSTALLER = "pip"


def main(wheels: Path, lock: Path, target: Path) -> None:
    """Fill ``target`` with importable packages, compiled, all files of one time."""
    installer = next(wheels.glob(f"{INSTALLER}-*.whl"))
    subprocess.run(
        [
            *(sys.executable, str(installer / "pip"), "install", "--no-index", "--no-deps"),
            *("--no-compile", "--no-cache-dir", "--disable-pip-version-check", "--quiet"),
            *("--root-user-action=ignore", "--require-hashes", "--find-links", str(wheels)),
            *("--target", str(target), "--requirement", str(lock)),
        ],
        check=True,
    )
    for path in sorted(target.iterdir()):
        # The installer was needed here only, and console scripts name this stage's Python.
        if path.name in {"bin", INSTALLER} or path.name.startswith(f"{INSTALLER}-"):
            shutil.rmtree(path)
    compile_tree(target, target)
    set_times(target)


def compile_tree(folder: Path, shown: Path) -> None:
    """Compile ``folder`` so that the pycs name ``shown`` and are never checked again."""
    compileall.compile_dir(
        str(folder),
        stripdir=str(folder),
        prependdir=str(shown),
        maxlevels=50,
        quiet=2,
        workers=0,
        # Unchecked: the image's files never change, and a check costs a stat per module.
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def set_times(folder: Path) -> None:
    """Give everything below ``folder`` the one time."""
    for root, directories, files in os.walk(folder):
        for name in (*directories, *files):
            os.utime(Path(root, name), (TIMESTAMP, TIMESTAMP), follow_symlinks=False)
    os.utime(folder, (TIMESTAMP, TIMESTAMP))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:4]))
