"""Searches places for secrets, in the forms that they may have there, and watches processes.

Exists for the tests that show where a lab's key and private key are not. A found secret is named by
name, form and place, and never shown. The search cannot look into encrypted data, nor into archives
other than tar, zip, gzip, bzip2 or xz; and the watch can miss a process that ends within its pause.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import re
import sqlite3
import stat
import tarfile
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

#: Shorter pieces would be found by chance.
SHORTEST = 12
CHUNK_BYTES = 8 << 20
#: No secret is longer, in any form and with any breaks between its lines.
OVERLAP_BYTES = 4096
#: Unpacked data stays in memory up to this size; above it, it is stored in an unnamed file.
SPOOL_BYTES = 64 << 20
PAUSE_SECONDS = 0.05

_SQLITE = b"SQLite format 3\0"
_HEAD_BYTES = 512
_STREAMS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
#: The data is damaged, cut off, or only looks like an archive.
_NOT_PACKED = (OSError, EOFError, ValueError, tarfile.TarError, lzma.LZMAError, zlib.error)
_NO_ZIP = (*_NOT_PACKED, zipfile.BadZipFile, NotImplementedError, RuntimeError)
_BREAKS = b' \t\r\n\\"'


@dataclass(frozen=True)
class Secret:
    """A secret by its name, and the pieces of it that must be nowhere."""

    name: str
    pieces: Mapping[str, bytes] = field(repr=False)


def text_secret(name: str, value: str) -> Secret:
    """A key or password."""
    return Secret(name, {"text": value.encode()})


def private_key(name: str, pem: str) -> Secret:
    """The first private key in ``pem``: its number, and the lines of the PEM that have part of it.

    The public key is in the certificate, and so everywhere; lines that have only it are left out.
    """
    block = re.search(
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+(.+?)-----END [A-Z ]*PRIVATE KEY-----", pem, re.S
    )
    assert block, f"{name}: no private key is there"
    key = load_pem_private_key(block[0].encode(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    numbers = key.private_numbers()
    number = numbers.private_value.to_bytes((key.key_size + 7) // 8, "big")
    pieces = {"number": number, "decimal number": str(numbers.private_value).encode()}
    lines = block[1].split()
    whole = base64.b64decode("".join(lines))
    begins = whole.index(number)
    ends, at = begins + len(number), 0
    for count, line in enumerate(lines, 1):
        line_ends = at + len(base64.b64decode(line))
        if min(ends, line_ends) - max(begins, at) >= SHORTEST - 4:
            pieces[f"line {count} of the PEM"] = line.encode()
        at = line_ends
    return Secret(name, pieces)


def forms(piece: bytes) -> dict[bytes, str]:
    """The ways in which ``piece`` may be written: the bytes to search for, and the form's name."""
    found = {piece: "plain"}

    def add(form: bytes, what: str) -> None:
        found.setdefault(form, what)

    for before in range(3):
        # Within longer base64 a piece begins at one of three places of a group of four letters.
        # Letters that also hold bits of the text before or after it are cut off.
        letters = base64.b64encode(bytes(before) + piece)
        inner = letters[(before * 8 + 5) // 6 : (before + len(piece)) * 8 // 6]
        add(inner, "base64")
        add(inner.translate(bytes.maketrans(b"+/", b"-_")), "base64 for URLs")
    add(piece.hex().encode(), "hex")
    add(piece.hex().upper().encode(), "hex")
    with suppress(UnicodeDecodeError):
        text = piece.decode("ascii")
        add(quote(text, safe="").encode(), "quoted for a URL")
        add(json.dumps(text)[1:-1].encode(), "quoted for JSON")
        add(json.dumps(text)[1:-1].replace("/", "\\/").encode(), "quoted for JSON")
        add(text.encode("utf-16-le"), "UTF-16")
    return found


@dataclass(frozen=True, order=True)
class Found:
    """A secret where it may not be."""

    secret: str
    form: str
    place: str

    def __str__(self) -> str:
        return f"{self.secret} ({self.form}) in {self.place}"


def nowhere(found: Iterable[Found]) -> None:
    """Fail and name each place; an assertion about a search would also show the searched text."""
    findings = [str(one) for one in found]
    if findings:
        raise AssertionError("\n".join(["secrets are where they may not be:", *findings]))


class Canary:
    """Looks for given secrets. Every ``in_...`` returns what is found, sorted; empty is good."""

    def __init__(self, secrets: Iterable[Secret]) -> None:
        self._needles: dict[bytes, tuple[str, str]] = {}
        for secret in secrets:
            for name, piece in secret.pieces.items():
                for form, how in forms(piece).items():
                    assert SHORTEST <= len(form) <= OVERLAP_BYTES // 2, f"{secret.name}, {name}"
                    self._needles.setdefault(form, (secret.name, f"{name}, {how}"))
        assert self._needles

    def in_text(self, place: str, text: str) -> list[Found]:
        """In a text."""
        return self.in_bytes(place, text.encode(errors="surrogateescape"))

    def in_json(self, place: str, value: Any) -> list[Found]:
        """In every name and value of a JSON document."""
        return self.in_text(place, json.dumps(value, default=str, ensure_ascii=False))

    def in_bytes(self, place: str, data: bytes) -> list[Found]:
        """In bytes, and in every archive in them."""
        return self.in_file(place, io.BytesIO(data))

    def in_file(self, place: str, file: IO[bytes]) -> list[Found]:
        """In a seekable file, and in every archive in it."""
        return sorted(set(self._whole(place, file)))

    def in_path(self, path: Path, place: str | None = None) -> list[Found]:
        """In a file's name, its content, and the cells of an SQLite database."""
        place = place or str(path)
        found = set(self._raw(f"the name of {place}", os.fsencode(path)))
        with path.open("rb") as file:
            found |= set(self._whole(place, file))
            file.seek(0)
            is_database = file.read(len(_SQLITE)) == _SQLITE
        if is_database:
            found |= set(self._database(place, path))
        return sorted(found)

    def in_folder(
        self, folder: Path, *, since: float = 0, allowed: Collection[Path] = ()
    ) -> tuple[list[Found], list[Path]]:
        """In all files below ``folder`` but ``allowed``; also which files were searched.

        A file that was not changed after ``since`` (seconds of the epoch) is left out: it cannot
        have a secret that is younger.
        """
        found, searched = set[Found](), list[Path]()
        for path in sorted(folder.rglob("*")):
            # Files appear and disappear while a lab lives.
            with suppress(FileNotFoundError):
                status = path.lstat()
                if not stat.S_ISREG(status.st_mode) or path in allowed:
                    continue
                if max(status.st_ctime, status.st_mtime) < since:
                    continue
                found |= set(self.in_path(path, str(path.relative_to(folder.parent))))
                searched.append(path)
        return sorted(found), searched

    def _whole(self, place: str, file: IO[bytes]) -> Iterator[Found]:
        yield from self._raw_file(place, file)
        yield from self._packed(place, file)

    def _raw_file(self, place: str, file: IO[bytes], copy: IO[bytes] | None = None) -> set[Found]:
        found, last = set[Found](), b""
        while chunk := file.read(CHUNK_BYTES):
            if copy is not None:
                copy.write(chunk)
            found |= set(self._raw(place, last + chunk))
            last = (last + chunk)[-OVERLAP_BYTES:]
        return found

    def _raw(self, place: str, data: bytes) -> Iterator[Found]:
        # A log or an encoder may have broken the line within a secret.
        joined = data.replace(b"\\n", b"").replace(b"\\r", b"").translate(None, _BREAKS)
        for needle, (secret, form) in self._needles.items():
            if needle in data or needle in joined:
                yield Found(secret, form, place)

    def _packed(self, place: str, file: IO[bytes]) -> Iterator[Found]:
        file.seek(0)
        head = file.read(_HEAD_BYTES)
        file.seek(0)
        for magic, unpack in _STREAMS.items():
            if head.startswith(magic):
                yield from self._unpacked(place, unpack, file)
                return
        if head.startswith(b"PK\x03\x04"):
            yield from self._zip(place, file)
        elif head[257:262] == b"ustar":
            yield from self._tar(place, file)

    def _unpacked(
        self, place: str, unpack: Callable[[Any], Any], file: IO[bytes]
    ) -> Iterator[Found]:
        with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as plain:
            last = b""
            with suppress(*_NOT_PACKED), unpack(file) as stream:
                # The data before the damage is searched.
                while chunk := stream.read(CHUNK_BYTES):
                    plain.write(chunk)
                    yield from self._raw(f"{place}, unpacked", last + chunk)
                    last = (last + chunk)[-OVERLAP_BYTES:]
            yield from self._packed(f"{place}, unpacked", plain)

    def _zip(self, place: str, file: IO[bytes]) -> Iterator[Found]:
        with suppress(*_NO_ZIP), zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                with (
                    suppress(*_NO_ZIP),
                    archive.open(name) as member,
                    tempfile.SpooledTemporaryFile(SPOOL_BYTES) as plain,
                ):
                    yield from self._raw_file(f"{place}: {name}", member, plain)
                    yield from self._packed(f"{place}: {name}", plain)

    def _tar(self, place: str, file: IO[bytes]) -> Iterator[Found]:
        """Only archives in its members: the members themselves are in the file as they are."""
        with suppress(*_NOT_PACKED), tarfile.open(fileobj=file, mode="r:") as archive:
            for entry in archive:
                member = archive.extractfile(entry) if entry.isreg() else None
                if member is not None:
                    yield from self._packed(f"{place}: {entry.name}", member)

    def _database(self, place: str, path: Path) -> Iterator[Found]:
        """In each cell: a long one is stored in pieces over the file's pages."""
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30)) as base:
            base.text_factory = bytes
            tables = base.execute("select name from sqlite_master where type = 'table'").fetchall()
            for (table,) in tables:
                name = table.decode()
                # A virtual table's module may be unknown here; its content is in other tables.
                with suppress(sqlite3.OperationalError):
                    rows = base.execute(f'select * from "{name}"')
                    while some := rows.fetchmany(500):
                        cells = [c for row in some for c in row if isinstance(c, bytes)]
                        yield from self._raw(f"{place}, table {name}", b"\0".join(cells))
                        for cell in cells:
                            if cell.startswith((*_STREAMS, b"PK\x03\x04")):
                                yield from self._packed(f"{place}, table {name}", io.BytesIO(cell))


@dataclass(frozen=True)
class Process:
    """What a process showed of itself: its name, and the namespace of its numbers."""

    name: str
    arguments: bytes = field(repr=False)
    environment: bytes = field(repr=False)
    namespace: str

    def assigns(self, variable: str) -> bool:
        """Whether the process was given ``variable``."""
        return f"\0{variable}=".encode() in b"\0" + self.environment

    def __str__(self) -> str:
        return f"process {self.name} ({'ours' if self.namespace == own_namespace() else 'inner'})"


def own_namespace() -> str:
    """The namespace of this process's number; a container has another."""
    return str(Path("/proc/self/ns/pid").readlink())


class Watch:
    """Keeps, within its block, what each process of the machine is started with.

    Also keeps the files with Terraform's variables, which are deleted afterwards.
    """

    def __init__(self, variables: Path | None = None, proc: Path = Path("/proc")) -> None:
        self._variables = variables or Path(tempfile.gettempdir())
        self._proc = proc
        self._seen: dict[tuple[str, bytes], Process] = {}
        self.files: dict[str, bytes] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failed: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if self._failed:
            raise self._failed

    @property
    def processes(self) -> list[Process]:
        """All that were seen."""
        return list(self._seen.values())

    def look(self) -> None:
        """Look once."""
        for process in self._proc.glob("[0-9]*"):
            # Each process may end meanwhile.
            with suppress(OSError):
                self._look_at(process)
        for path in self._variables.glob("*.tfvars*"):
            with suppress(OSError):
                self.files[path.name] = self.files.get(path.name, b"") or path.read_bytes()

    def _look_at(self, process: Path) -> None:
        arguments = (process / "cmdline").read_bytes()
        # Its environment changes only when it starts another program.
        if not arguments or (process.name, arguments) in self._seen:
            return
        name = (process / "comm").read_text(errors="replace").strip()
        environment, namespace = b"", ""
        # Everybody may see a process's arguments, but only its owner may see the rest.
        with suppress(PermissionError):
            environment = (process / "environ").read_bytes()
            namespace = str((process / "ns" / "pid").readlink())
        if (process / "cmdline").read_bytes() != arguments:
            # It started another program meanwhile, which the next look sees completely.
            return
        seen = Process(name, arguments, environment, namespace)
        self._seen[process.name, arguments] = seen

    def _run(self) -> None:
        try:
            while not self._done.is_set():
                self.look()
                time.sleep(PAUSE_SECONDS)
        except BaseException as error:
            self._failed = error
