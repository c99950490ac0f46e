"""Installs the wheels of the build context into one folder. Runs inside the image's builder.

Exists so that an image is built with no network, no package manager and no shell, and with
equal files from equal inputs. It may install nothing that the lock does not name by hash.

Usage: install_site.py WHEELS LOCK TARGET [PRUNED]
"""

from __future__ import annotations

import compileall
import fnmatch
import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

# Every file's time, so that two builds of the same wheels are equal.
TIMESTAMP = 1_700_000_000
INSTALLER = "pip"


def main(wheels: Path, lock: Path, target: Path, pruned: Path | None = None) -> None:
    """Fill ``target`` with importable packages, compiled, with one time for all files.

    With ``pruned``, the files that it names are left out, and there is byte code only.
    """
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
    if pruned:
        prune(target, pruned.read_text(encoding="utf-8"))
    compile_tree(target, target)
    if pruned:
        drop_sources(target)
    set_times(target)


def prune(folder: Path, rules: str) -> None:
    """Remove the files that ``rules`` name, and folders that are then empty.

    Each line is a rule, a pattern; with ``!`` before it, it keeps files that another names. Raises
    SystemExit for a rule that fits no file: its files may have other names now.
    """
    patterns = [line for line in rules.splitlines() if line and not line.startswith("#")]
    files = [path for path in sorted(folder.rglob("*")) if not path.is_dir()]
    fitting = {
        pattern: {
            path
            for path in files
            if fnmatch.fnmatchcase(path.relative_to(folder).as_posix(), pattern.removeprefix("!"))
        }
        for pattern in patterns
    }
    idle = [pattern for pattern, fits in fitting.items() if not fits]
    if idle:
        sys.exit(f"pruning rules that fit no file: {', '.join(idle)}")
    kept = set[Path]().union(*(fits for rule, fits in fitting.items() if rule.startswith("!")))
    for path in set[Path]().union(*fitting.values()) - kept:
        path.unlink()
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def compile_tree(folder: Path, shown: Path) -> None:
    """Compile ``folder`` so that the pycs name ``shown`` and are never checked again."""
    compileall.compile_dir(
        str(folder),
        stripdir=str(folder),
        prependdir=str(shown),
        maxlevels=50,
        quiet=2,
        workers=0,
        # Unchecked: the image's files never change, and a check costs one stat per module.
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def drop_sources(folder: Path) -> None:
    """Replace each source by its byte code, which Python finds there too."""
    for compiled in sorted(folder.rglob("__pycache__/*.pyc")):
        source = compiled.parent.parent / f"{compiled.name.partition('.')[0]}.py"
        compiled.rename(source.with_suffix(".pyc"))
        source.unlink()
    for cache in folder.rglob("__pycache__"):
        cache.rmdir()


def set_times(folder: Path) -> None:
    """Give everything below ``folder`` the same time."""
    for root, directories, files in os.walk(folder):
        for name in (*directories, *files):
            os.utime(Path(root, name), (TIMESTAMP, TIMESTAMP), follow_symlinks=False)
    os.utime(folder, (TIMESTAMP, TIMESTAMP))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:5]))
