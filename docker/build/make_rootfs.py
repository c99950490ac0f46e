"""Copies what Python needs to run out of a base image. Runs inside the image's builder.

Exists so that the final image has the same content whatever the base: no shell, no package
manager, no pip, no compiler, no set-user-id file. Kept files are named; the rest is dropped.
It may not fetch anything, nor write outside its target.

Usage: make_rootfs.py TARGET
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path, PurePosixPath

from install_site import compile_tree, set_times

USER = 65532
KEPT = (
    "etc/ca-certificates.conf",
    "etc/debian_version",
    "etc/host.conf",
    "etc/ld.so.cache",
    "etc/ld.so.conf",
    "etc/ld.so.conf.d",
    "etc/localtime",
    "etc/mime.types",
    "etc/os-release",
    "etc/protocols",
    "etc/services",
    "etc/ssl",
    "lib",
    "lib64",
    "usr/lib",
    "usr/lib64",
    "usr/local/lib",
    "usr/share/ca-certificates",
    "usr/share/common-licenses",
    "usr/share/doc",
    "usr/share/zoneinfo",
    # Scanners read these to know the packages.
    "var/lib/dpkg/status",
    "var/lib/dpkg/status.d",
)
INTERPRETERS = ("usr/bin", "usr/local/bin")
DROPPED_ANYWHERE = {"__pycache__"}
DROPPED_BELOW_LIB = {
    *("apt", "dpkg", "gcc", "gconv", "init", "locale", "perl", "perl-base", "perl5"),
    *("pkgconfig", "security", "systemd", "tmpfiles.d", "udev", "compat-ld", "gold-ld"),
}
DROPPED_OF_PYTHON = {
    *("ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter", "turtledemo"),
    *("pip", "setuptools", "wheel", "pkg_resources", "_distutils_hack"),
}
DROPPED_PREFIXES = ("pip-", "setuptools-", "wheel-", "config-3.", "distutils-precedence")
MACHINE_FOLDERS = {"x86_64-linux-gnu", "aarch64-linux-gnu"}


def main(target: Path) -> None:
    """Fill ``target`` with a root file system that can run Python and nothing else."""
    for name in KEPT:
        _copy(Path("/", name), target)
    for folder in INTERPRETERS:
        for path in sorted(Path("/", folder).glob("python3*")):
            if "config" not in path.name:
                _copy(path, target)
    # Mount points, and the one folder that everyone may write to.
    for name, mode in {"dev": 0o755, "proc": 0o755, "sys": 0o755, "run": 0o755}.items():
        (target / name).mkdir(mode=mode, exist_ok=True)
    (target / "tmp").mkdir()
    (target / "tmp").chmod(0o1777)
    etc = target / "etc"
    (etc / "passwd").write_text(
        f"root:x:0:0:root:/:/nonexistent\ngateway:x:{USER}:{USER}:gateway:/tmp:/nonexistent\n"
    )
    (etc / "group").write_text(f"root:x:0:\ngateway:x:{USER}:\n")
    # Without this file the C library asks DNS before it looks into /etc/hosts.
    (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    for library in ("usr/lib/python3.11", "usr/local/lib/python3.11"):
        if (target / library).is_dir() and not (target / library).is_symlink():
            compile_tree(target / library, Path("/", library))
    set_times(target)


def _copy(source: Path, target: Path) -> None:
    relative = source.relative_to("/")
    if not source.is_symlink() and not source.exists():
        return
    if _is_dropped(PurePosixPath(relative)):
        return
    goal = target / relative
    goal.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        goal.symlink_to(source.readlink())
    elif source.is_dir():
        goal.mkdir(exist_ok=True)
        for child in sorted(source.iterdir()):
            _copy(child, target)
    elif source.is_file():
        shutil.copyfile(source, goal)
        goal.chmod(stat.S_IMODE(source.stat().st_mode) & 0o755)


def _is_dropped(path: PurePosixPath) -> bool:
    name, parts = path.name, path.parts
    if name in DROPPED_ANYWHERE or name.startswith(DROPPED_PREFIXES):
        return True
    if parts[:3] == ("usr", "share", "doc"):
        return len(parts) == 5 and name != "copyright"
    if parts[:3] == ("usr", "share", "zoneinfo"):
        return name in {"posix", "right"}
    if "python3.11" in parts:
        return name in DROPPED_OF_PYTHON
    if parts[0] in {"lib", "usr"} and (path.parent.name in {"lib", *MACHINE_FOLDERS}):
        return name in DROPPED_BELOW_LIB
    return False


if __name__ == "__main__":
    os.umask(0o022)
    main(Path(sys.argv[1]))
