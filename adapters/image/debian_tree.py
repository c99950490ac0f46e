"""The files of a base image, from Debian's signed packages, and the layer that they make.

No mirror's address is written anywhere: packages come from the sources of this machine's apt.
Nothing here calls the engine.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from adapters.process import Finished, run_child
from lab.errors import PermanentError, TransientError

DEBIAN_DEADLINE_SECONDS = 600.0

# Docker's names of the architectures, which are also Debian's.
DOCKER_ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}

# libstdc++6: manylinux wheels may use the system's. base-files and netbase: /etc.
DEBIAN_PACKAGES = (
    *("base-files", "ca-certificates", "libstdc++6", "media-types", "netbase"),
    *("python3", "tzdata"),
)

# Raise it when the tree that is made from the packages changes.
RECIPE = 1

TIMESTAMP = 1_700_000_000

DROPPED = (
    *("boot", "dev", "home", "media", "mnt", "proc", "run", "srv", "sys", "tmp"),
    *("etc/apt", "etc/cron.d", "etc/cron.daily", "etc/systemd", "usr/include", "usr/games"),
    *("usr/share/bash-completion", "usr/share/bug", "usr/share/info", "usr/share/lintian"),
    *("usr/share/locale", "usr/share/man", "usr/share/perl5", "usr/share/pixmaps"),
    *("var/cache", "var/lib/apt", "var/lib/dpkg", "var/log"),
)

Log = Callable[[str], None]

EMPTY_FOLDERS = {"dev": 0o755, "proc": 0o755, "run": 0o755, "sys": 0o755, "tmp": 0o1777}


def unpack_packages(root: Path, architecture: str, suite: str, log: Log) -> None:
    """On return ``root`` has the files of the packages, checked by Debian's signatures.

    Raises PermanentError where this machine cannot make them, TransientError if apt fails.
    """
    if platform.system() != "Linux" or shutil.which("apt-get") is None:
        raise PermanentError(
            "No registry answers, and this machine has no apt-get to make a base image with",
            "Make a registry reachable, or run this on Debian or Ubuntu.",
        )
    if os.geteuid() != 0:
        raise PermanentError(
            "No registry answers, and making a base image from Debian's packages needs root",
            "Make a registry reachable, or run this as root.",
        )
    if shutil.which("mmdebstrap") is None:
        log("Installing mmdebstrap")
        quiet: dict[str, str] = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for argv in (
            ["apt-get", "update", "--quiet=2"],
            ["apt-get", "install", "--quiet=2", "--no-install-recommends", "--yes", "mmdebstrap"],
        ):
            done = run_child(argv, deadline=300, env=quiet)
            if done.code != 0:
                raise TransientError(
                    f"{' '.join(argv)} failed: {_last(done)}", "Look at apt's sources."
                )
    log(f"Making a base image from Debian {suite} for {architecture}")
    done = run_child(
        [
            *("mmdebstrap", "--mode=root", "--variant=extract", "--format=directory"),
            f"--architectures={DOCKER_ARCHITECTURES[architecture]}",
            f"--include={','.join(DEBIAN_PACKAGES)}",
            # A merged /usr, and no cleanup: the packages' control data is read below.
            *("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", "--skip=cleanup"),
            *(suite, str(root), *_apt_sources(suite)),
        ],
        on_stderr=lambda line: log(line) if line.startswith(("I:", "E:")) else None,
        deadline=DEBIAN_DEADLINE_SECONDS,
        env={**os.environ, "LC_ALL": "C", "SOURCE_DATE_EPOCH": str(TIMESTAMP)},
    )
    if done.code != 0:
        raise TransientError(
            f"mmdebstrap failed (exit {done.code}): {_last(done)}",
            f"Check that apt's sources here serve Debian {suite}.",
        )


def _last(done: Finished) -> str:
    lines = f"{done.stdout}\n{done.stderr}".splitlines()
    errors = [line for line in lines if line.startswith("E:")]
    return (errors or [line for line in lines if line.strip()] or ["no output"])[-1]


def _apt_sources(suite: str) -> list[str]:
    """This machine's apt sources that serve ``suite``; without any, mmdebstrap uses its own."""
    folder = Path("/etc/apt/sources.list.d")
    files = [Path("/etc/apt/sources.list"), *sorted(folder.glob("*.list"))]
    files += sorted(folder.glob("*.sources"))
    return [
        str(path)
        for path in files
        if path.is_file()
        and "debian" in (text := path.read_text(encoding="utf-8", errors="replace"))
        and suite in text.replace(",", " ").split()
    ]


def finish_tree(root: Path) -> None:
    """Do what the packages' own scripts would, and remove the files that only these need."""
    status = root / "var/lib/dpkg/status.d"
    records: dict[str, str] = {}
    for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        done = run_child(["dpkg-deb", "--field", str(package)], deadline=60)
        if done.code == 0:
            records[package.name.partition("_")[0]] = (
                f"{done.stdout.strip()}\nStatus: install ok installed\n"
            )
    for name in DROPPED:
        path = root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
    for name, mode in EMPTY_FOLDERS.items():
        (root / name).mkdir(exist_ok=True)
        (root / name).chmod(mode)
    # A file for each package, where scanners look when there is no package manager.
    status.mkdir(parents=True)
    for name, record in records.items():
        (status / name).write_text(record, encoding="utf-8")
    for path in (root / "usr/share/doc").rglob("*"):
        if path.is_file() and path.name != "copyright":
            path.unlink()
    certificates = root / "etc/ssl/certs/ca-certificates.crt"
    certificates.parent.mkdir(parents=True, exist_ok=True)
    with certificates.open("wb") as bundle:
        for path in sorted((root / "usr/share/ca-certificates/mozilla").glob("*.crt")):
            bundle.write(path.read_bytes())


def write_layer(root: Path, layer: Path) -> str:
    """Write ``root`` as a tar that depends only on its files, and return its SHA-256.

    Sorted, with one time for all, owned by root's numbers, without devices and sockets.
    """
    with (
        layer.open("wb") as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in _sorted_tree(root):
            status = path.lstat()
            if not (
                stat.S_ISREG(status.st_mode)
                or stat.S_ISDIR(status.st_mode)
                or stat.S_ISLNK(status.st_mode)
            ):
                continue
            entry = tarfile.TarInfo(str(path.relative_to(root)))
            entry.mode = stat.S_IMODE(status.st_mode)
            entry.mtime = TIMESTAMP
            if stat.S_ISLNK(status.st_mode):
                entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
                tar.addfile(entry)
            elif stat.S_ISDIR(status.st_mode):
                entry.type = tarfile.DIRTYPE
                tar.addfile(entry)
            else:
                entry.size = status.st_size
                with path.open("rb") as content:
                    tar.addfile(entry, content)
    with layer.open("rb") as written:
        return hashlib.file_digest(written, "sha256").hexdigest()


def _sorted_tree(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _sorted_tree(path)
