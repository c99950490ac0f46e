"""The search for secrets finds planted ones, in each form and kind of place."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import secrets
import sqlite3
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from lab.certificate import make_certificate
from tests.canary import (
    CHUNK_BYTES,
    Canary,
    Secret,
    Watch,
    forms,
    nowhere,
    own_namespace,
    private_key,
    text_secret,
)

#: Made new for each run of the tests, so that they belong to nobody.
KEY = f"sk-{secrets.token_urlsafe(36)}"
NOW = datetime.now(UTC)
MADE = make_certificate("gateway-lab-planted.internal", NOW, NOW + timedelta(hours=1))
BLOCK = MADE.pem[: MADE.pem.index("-----BEGIN CERTIFICATE")]
BODY = "".join(BLOCK.splitlines()[1:-1])
LOADED = load_pem_private_key(BLOCK.encode(), None)
CANARY = Canary([text_secret("key", KEY), private_key("private key", MADE.pem)])


def names(found: list) -> set[str]:
    return {one.secret for one in found}


def wrapped(data: bytes, columns: int) -> bytes:
    letters = base64.b64encode(data)
    return b"\n".join(letters[i : i + columns] for i in range(0, len(letters), columns))


#: Ids are names, not values: they must show no secret, and be the same in every process.
KEY_FORMS: dict[str, str] = {
    "plain": KEY,
    "a task definition": f'{{"env": [{{"name": "K", "value": "{KEY}"}}]}}',
    "a header": f"Authorization: Bearer {KEY}",
    "quoted for a URL": quote(f"?key={KEY}"),
    "JSON in JSON": json.dumps(json.dumps({"key": KEY})),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 of a login": base64.b64encode(f"AWS:{KEY}".encode()).decode(),
    "base64, text on both sides": base64.b64encode(f"user:{KEY}:more".encode()).decode(),
    "base64 for URLs": base64.urlsafe_b64encode(f"xy{KEY}z".encode()).decode(),
    "base64 in short lines": wrapped(f"some words before {KEY}".encode(), 20).decode(),
    "hex": KEY.encode().hex(),
    "hex in capitals": KEY.encode().hex().upper(),
    "broken in lines": f"{KEY[:20]}\n{KEY[20:]}",
}


@pytest.mark.parametrize("form", KEY_FORMS)
def test_a_key_is_found_in_each_form(form: str) -> None:
    """should find it as text, quoted, encoded at any place of a longer text, or broken in lines"""
    text = KEY_FORMS[form]
    assert names(CANARY.in_text("here", text)) == {"key"}
    assert names(CANARY.in_text("here", "x" * 5000 + text + "y" * 5000)) == {"key"}


PRIVATE_KEY_FORMS: dict[str, str] = {
    "PEM": MADE.pem,
    "without lines": BODY,
    "JSON": json.dumps({"pem": MADE.pem}),
    "JSON in JSON": json.dumps(json.dumps({"pem": MADE.pem})),
    "quoted for a URL": quote(BLOCK, safe=""),
    "its first line": BLOCK.splitlines()[1],
    "its second line": BLOCK.splitlines()[2],
    "base64": base64.b64encode(MADE.pem.encode()).decode(),
    "base64 in lines": wrapped(b"TLS=" + MADE.pem.encode(), 76).decode(),
}


@pytest.mark.parametrize("form", PRIVATE_KEY_FORMS)
def test_a_private_key_is_found_in_each_form(form: str) -> None:
    """should find the whole PEM, in lines, without line breaks, quoted and encoded"""
    assert names(CANARY.in_text("here", PRIVATE_KEY_FORMS[form])) == {"private key"}


@pytest.mark.parametrize(
    "file_form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL], ids=["PKCS8", "SEC1"]
)
@pytest.mark.parametrize("encoding", [Encoding.DER, Encoding.PEM])
def test_a_private_key_is_found_in_another_file_form(
    file_form: PrivateFormat, encoding: Encoding
) -> None:
    """should find the number itself, whatever is around it"""
    data = LOADED.private_bytes(encoding, file_form, NoEncryption())
    assert names(CANARY.in_bytes("here", data)) == {"private key"}


def test_public_parts_are_no_finding() -> None:
    """should find nothing in certificates and the public key: they are everywhere"""
    from cryptography.hazmat.primitives.serialization import PublicFormat

    public = LOADED.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    certificates = MADE.pem[len(BLOCK) :]
    assert CANARY.in_text("here", certificates + MADE.trust.ca) == []
    assert CANARY.in_bytes("here", public + b"".join(public.split())) == []
    assert CANARY.in_text("here", BLOCK.splitlines()[3]) == []


def packed_tar(data: bytes) -> bytes:
    return tar({"etc/one": b"nothing", "var/two": data})


def tar(members: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return made.getvalue()


def packed_zip(data: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/two", data)
    return made.getvalue()


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "two gzip members": lambda data: gzip.compress(b"nothing") + gzip.compress(data),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zip": packed_zip,
    "tar": packed_tar,
    "tar in gzip": lambda data: gzip.compress(packed_tar(data)),
    "gzip in tar": lambda data: packed_tar(gzip.compress(data)),
    "an image: layers of gzip in a tar in a tar": lambda data: tar(
        {"layer/layer.tar": packed_tar(gzip.compress(data)), "manifest.json": b"[]"}
    ),
    "zip in gzip in tar": lambda data: packed_tar(gzip.compress(packed_zip(data))),
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_packed_secrets_are_found(packing: str, tmp_path: Path) -> None:
    """should search archives in archives, and the readable part of one that is cut off"""
    data = PACKINGS[packing](b"before " * 999 + f"{KEY}\n{MADE.pem}".encode() + b" after" * 999)
    (tmp_path / "file").write_bytes(data)
    found, searched = CANARY.in_folder(tmp_path)
    assert names(found) == {"key", "private key"}
    assert searched == [tmp_path / "file"]
    assert CANARY.in_bytes("here", PACKINGS[packing](b"nothing " * 999)) == []


def test_a_truncated_archive_is_searched_to_its_end() -> None:
    """should find what can still be read, and not fail on the rest"""
    noise = secrets.token_bytes(1 << 20)
    data = gzip.compress(KEY.encode() + noise)
    assert names(CANARY.in_bytes("here", data[: len(data) // 2])) == {"key"}
    assert CANARY.in_bytes("here", b"\x1f\x8bnothing of the kind") == []


@pytest.mark.parametrize("at", [CHUNK_BYTES - 1, CHUNK_BYTES - len(KEY) // 2, CHUNK_BYTES + 1])
def test_a_secret_across_two_chunks_is_found(at: int) -> None:
    """should miss nothing where one read ends and the next begins"""
    data = b"." * at + KEY.encode() + b"." * 99
    assert names(CANARY.in_bytes("here", data)) == {"key"}
    assert names(CANARY.in_bytes("here", gzip.compress(data, 1))) == {"key"}


def test_a_database_is_searched_with_its_write_ahead_log(tmp_path: Path) -> None:
    """should find a value in the log next to the file, and one that is spread over pages"""
    path = tmp_path / "prefect.db"
    with closing(sqlite3.connect(path)) as base:
        base.execute("pragma journal_mode=wal")
        base.execute("create table log (id integer, message text, more blob)")
        base.execute("create table other (message text)")
        base.execute("insert into log values (1, ?, ?)", ("." * 4000 + KEY + "." * 9000, b""))
        base.execute(
            "insert into other values (?)", (json.dumps({"a": "." * 3990, "pem": MADE.pem}),)
        )
        base.execute("insert into log values (2, '', ?)", (gzip.compress(KEY.encode()),))
        base.commit()
        found = CANARY.in_path(path)
    assert {("key", f"{path}, table log"), ("private key", f"{path}, table other")} <= {
        (one.secret, one.place) for one in found
    }


def test_a_files_name_is_searched_too(tmp_path: Path) -> None:
    """should find a secret that is used as a file's name"""
    (tmp_path / KEY).touch()
    found, _ = CANARY.in_folder(tmp_path)
    assert names(found) == {"key"}


def test_only_allowed_or_older_files_are_left_out(tmp_path: Path) -> None:
    """should leave out the named file and files without a later change, and follow no link"""
    for name in ("allowed", "not"):
        (tmp_path / name).write_text(KEY)
    (tmp_path / "link").symlink_to(tmp_path / "not")
    allowed = [tmp_path / "allowed"]
    found, searched = CANARY.in_folder(tmp_path, allowed=allowed)
    assert searched == [tmp_path / "not"]
    assert [one.place for one in found if one.form.endswith("plain")] == [f"{tmp_path.name}/not"]
    assert CANARY.in_folder(tmp_path, since=time.time() + 60) == ([], [])


def test_a_finding_does_not_show_the_secret() -> None:
    """should name place and form, and nothing that must not be in a log"""
    secret = text_secret("key", KEY)
    (found,) = CANARY.in_text("there", KEY)
    assert str(found) == "key (text, plain) in there"
    with pytest.raises(AssertionError, match=r"key \(text, plain\) in there") as caught:
        nowhere([found])
    nowhere([])
    said = f"{found} {found!r} {secret!r} {CANARY!r} {caught.value}"
    assert Canary([secret]).in_text("said", said) == []


def test_short_pieces_are_refused() -> None:
    """should not search for texts that are found by chance"""
    with pytest.raises(AssertionError):
        Canary([Secret("pin", {"text": b"1234"})])
    assert all(len(form) >= 12 for form in forms(KEY.encode()))


def test_processes_are_seen_with_arguments_and_environment(tmp_path: Path) -> None:
    """should see those of a child, and the content of a variables file while it existed"""
    code = "import sys; print('ready', flush=True); sys.stdin.read()"
    with Watch(tmp_path) as watch:
        variables = tmp_path / "tmp1.tfvars.json"
        variables.write_text(json.dumps({"tls_pem": MADE.pem}))
        child = subprocess.Popen(
            [sys.executable, "-c", code, f"--key={KEY}"],
            env={"TF_VAR_tls_pem": MADE.pem},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        child.stdout.readline()
        watch.look()
        child.communicate()
        variables.unlink()
    (seen,) = [p for p in watch.processes if KEY.encode() in p.arguments]
    assert names(CANARY.in_bytes("arguments", seen.arguments)) == {"key"}
    assert names(CANARY.in_bytes("environment", seen.environment)) == {"private key"}
    assert seen.assigns("TF_VAR_tls_pem")
    assert not seen.assigns("tls_pem")
    assert seen.namespace == own_namespace()
    assert names(CANARY.in_bytes("variables", watch.files["tmp1.tfvars.json"])) == {"private key"}
    assert Canary([text_secret("key", KEY)]).in_text("said", f"{seen} {seen!r}") == []
