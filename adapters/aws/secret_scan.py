"""Searches a lab's image in the registry and its state in the bucket for static keys.

Changes nothing. The search covers every byte that the cloud has: an image's layers are compared
with their digests. Large layers are searched once, and remembered as free of keys in a file on
this machine; small ones, which hold the project's own files, are searched each time.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from adapters.aws.bucket import StateBucket
from adapters.aws.registry import Registry
from adapters.aws.user_agent import propagate_stage
from lab.errors import PermanentError, TransientError
from lab.files import write_atomic
from lab.leaks import find_in_pieces, find_secrets
from lab.posture import Searched

#: Raise it when the search looks for something new: then every layer is searched again.
SEARCH_FORM = 1
#: A layer above this size in bytes is remembered.
SMALL = 4_000_000
#: Terraform writes a version of the state in each of its commands.
MOST_VERSIONS = 50
_PIECE = 1 << 20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


def search_image(
    registry: Registry, digest: str, known: Mapping[str, str], memory: Path
) -> Searched:
    """Search configuration, history and every layer of the image, as the registry returns them.

    ``known`` are further values to look for, by name; ``memory`` is the file that remembers.
    TransientError if the registry does not return one, PermanentError if it returns another.
    """
    manifest = registry.manifest(digest)
    config = str(manifest["config"]["digest"])
    findings = [
        f"{kind} in the image's configuration"
        for kind in find_in_pieces(_blob(registry, config), known)
    ]
    remembered = _recall(memory)
    searched: dict[str, int] = {}
    size = before = 0
    for layer in manifest["layers"]:
        name = str(layer["digest"])
        if name in remembered:
            before += 1
            continue
        found = find_in_pieces(_opened(_blob(registry, name), name), known)
        findings += [f"{kind} in layer {name}" for kind in found]
        size += layer["size"]
        if layer["size"] > SMALL and not found:
            searched[name] = layer["size"]
    if searched:
        # Another run may have added other layers meanwhile.
        _remember(memory, {**_recall(memory), **searched})
    count = len(manifest["layers"]) - before
    looked_at = f"configuration and {count} layers, {size / 1e6:.1f} MB"
    if before:
        looked_at += f", and {before} that were searched before"
    return Searched(looked_at, tuple(findings))


def search_state(bucket: StateBucket, key: str, known: Mapping[str, str]) -> Searched:
    """Search the Terraform state under ``key``, the present version and the earlier ones.

    PermanentError where there is none.
    """
    current = bucket.read(key)
    if current is None:
        raise PermanentError(f"there is no s3://{bucket.name}/{key}", "Bring the lab up again.")
    findings = [f"{kind} in the state" for kind in find_secrets(current[0], known)]
    versions = bucket.earlier_versions(key)
    newest = versions[:MOST_VERSIONS]

    def look(version: str) -> list[str]:
        return find_secrets(bucket.read_version(key, version), known)

    with ThreadPoolExecutor(max_workers=4) as pool:
        for version, kinds in zip(newest, pool.map(propagate_stage(look), newest), strict=True):
            findings += [f"{kind} in version {version} of the state" for kind in kinds]
    looked_at = f"the state and {len(newest)} versions before it"
    if len(versions) > len(newest):
        looked_at += f", of {len(versions)}"
    return Searched(looked_at, tuple(findings))


def _blob(registry: Registry, digest: str) -> Iterator[bytes]:
    """The bytes of ``digest`` in pieces, compared with it at their end."""
    # The address works without credentials: no error may repeat it.
    url = registry.blob_url(digest)
    whole = hashlib.sha256()
    try:
        with httpx.stream("GET", url, timeout=60.0, follow_redirects=True) as answer:
            if answer.status_code != httpx.codes.OK:
                raise TransientError(
                    f"the registry did not give out {digest}: HTTP {answer.status_code}",
                    "Try again.",
                )
            for piece in answer.iter_raw(_PIECE):
                whole.update(piece)
                yield piece
    except httpx.HTTPError as error:
        raise TransientError(
            f"the registry did not give out {digest}: {type(error).__name__}", "Try again."
        ) from None
    if f"sha256:{whole.hexdigest()}" != digest:
        raise PermanentError(
            f"the registry gives out something else for {digest}",
            "Do not run it. Remove the image from the registry and bring the lab up again.",
        )


def _opened(pieces: Iterator[bytes], digest: str) -> Iterator[bytes]:
    """The layer's unpacked bytes."""
    first = next(pieces, b"")
    if first.startswith(_ZSTD):
        raise PermanentError(f"the layer {digest} is compressed in a way that cannot be read here")
    if not first.startswith(_GZIP):
        yield first
        yield from pieces
        return
    unpack = zlib.decompressobj(31)
    try:
        for piece in _chain(first, pieces):
            rest = piece
            while rest:
                yield unpack.decompress(rest)
                rest = unpack.unused_data
                if rest:
                    # Several archives, one after the other, are one layer too.
                    unpack = zlib.decompressobj(31)
        yield unpack.flush()
    except zlib.error as error:
        raise PermanentError(f"the layer {digest} cannot be unpacked: {error}") from error


def _chain(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _recall(memory: Path) -> dict[str, int]:
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    known = isinstance(found, dict) and found.get("form") == SEARCH_FORM
    return dict(found["free_of_keys"]) if known else {}


def _remember(memory: Path, layers: Mapping[str, int]) -> None:
    write_atomic(memory, json.dumps({"form": SEARCH_FORM, "free_of_keys": layers}, indent=2) + "\n")
