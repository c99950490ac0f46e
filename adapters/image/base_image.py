"""Provides the image with Python that the project's images are built from.

Exists because not every machine reaches a container registry: where the public Python image is
not available, an equal one is made from Debian's packages, checked by Debian's signatures.
It may not decide what this project's own images hold.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound

from adapters.image.debian_tree import (
    DEBIAN_PACKAGES,
    DOCKER_ARCHITECTURES,
    DROPPED,
    RECIPE,
    finish_tree,
    unpack_packages,
    write_layer,
)
from lab.errors import DeadlineError, InvalidInputError, PermanentError
from lab.image.contents import BaseContents, read_dpkg, read_os_release

# The index (all architectures) of python:3.11-slim-bookworm, Python 3.11.16, as of 2026-10-01.
PUBLIC_PYTHON = (
    "python:3.11-slim-bookworm"
    "@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b"
)

REPOSITORY = "gateway-lab-base"
RECIPE_LABEL = "gateway-lab.base.recipe"
DIGEST_LABEL = "gateway-lab.base.sha256"
REGISTRY_DEADLINE_SECONDS = 20.0
PULL_DEADLINE_SECONDS = 600.0


Log = Callable[[str], None]


@dataclass(frozen=True)
class BaseImage:
    """An image with Python 3.11 that this engine has.

    ``reference`` is a local tag to build from; ``identity`` is what the tag must hold: the
    digest of the public image, or the SHA-256 of the file system made from Debian.
    """

    reference: str
    source: Literal["public", "debian"]
    identity: str
    architecture: str


def ensure_base_image(
    client: docker.DockerClient,
    architecture: str,
    *,
    public_reference: str | None,
    suite: str = "bookworm",
    log: Log,
) -> BaseImage:
    """Return a base image for ``architecture``, which the engine has on return.

    ``public_reference`` (with a digest) is tried first unless it is None; a registry that
    does not answer within twenty seconds is skipped. May be called any number of times: an
    existing image is used as it is, so the first choice stays, and the images built on it
    too. Raises :class:`InvalidInputError` for an unknown architecture or a reference without
    a digest, :class:`PermanentError` when neither way can work here, :class:`TransientError`
    when Debian's mirror failed.
    """
    if architecture not in DOCKER_ARCHITECTURES:
        raise InvalidInputError(
            f"Unknown architecture {architecture!r}",
            f"Choose one of {', '.join(DOCKER_ARCHITECTURES)}.",
        )
    if public_reference is not None and "@sha256:" not in public_reference:
        raise InvalidInputError(
            f"The base image {public_reference!r} is not pinned", "Give it as NAME@sha256:DIGEST."
        )
    check_architecture(client, architecture)
    public = None
    if public_reference is not None:
        public = _public_name(architecture, public_reference)
        if _architecture_of(client, public.reference) == DOCKER_ARCHITECTURES[architecture]:
            log(f"Base image: {public_reference}, already here")
            return public
    debian = _debian_here(client, architecture, suite)
    if debian is not None:
        log(f"Base image: {debian.reference}, already here")
        return debian
    if public is not None and public_reference is not None:
        reason = _pull(client, public, public_reference, log)
        if reason is None:
            return public
        log(f"No public base image: {reason}")
    return _make_debian(client, architecture, suite, log)


def read_contents(client: docker.DockerClient, reference: str) -> BaseContents:
    """What the base image ``reference`` declares about itself; nothing of it is run.

    Raises :class:`PermanentError` when the engine does not hold it or it names no packages.
    """
    try:
        environment = client.images.get(reference).attrs["Config"].get("Env") or []
        # Docker returns an image's files only through a container, which is never started here.
        container = client.api.create_container(reference, command=["none"])
        try:
            dpkg = _files_below(client, container["Id"], "/var/lib/dpkg")
            release = _files_below(client, container["Id"], "/usr/lib/os-release")
        finally:
            client.api.remove_container(container["Id"], force=True)
    except DockerException as error:
        raise PermanentError(
            f"The base image {reference} cannot be read: {getattr(error, 'explanation', error)}",
            "Remove it from the engine, so that it is made or pulled again.",
        ) from error
    # One file for all packages, or one for each where there is no package manager.
    known = {
        name: text
        for name, text in dpkg.items()
        if name == "dpkg/status" or name.startswith("dpkg/status.d/")
    }
    packages = tuple(read_dpkg("\n\n".join(known[name] for name in sorted(known))))
    says = read_os_release(release.get("os-release", ""))
    if not packages or "ID" not in says:
        raise PermanentError(
            f"The base image {reference} does not say which packages it holds",
            "Remove it from the engine, so that it is made or pulled again.",
        )
    set_by_image = dict(line.split("=", 1) for line in environment if "=" in line)
    return BaseContents(
        distribution=says["ID"],
        release=says.get("VERSION_ID", ""),
        packages=packages,
        python=set_by_image.get("PYTHON_VERSION"),
    )


def _files_below(client: docker.DockerClient, container: str, path: str) -> dict[str, str]:
    """The text of each file at or below ``path``, by its name from there on."""
    chunks, _ = client.api.get_archive(container, path)
    found: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            if content is not None:
                found[member.name] = content.read().decode(errors="replace")
    return found


def check_architecture(client: docker.DockerClient, architecture: str) -> None:
    """Check that this engine can run ``architecture``, natively or by emulation.

    Raises :class:`PermanentError` that names what is missing.
    """
    native = str(client.version().get("Arch", ""))
    wanted = DOCKER_ARCHITECTURES[architecture]
    if native == wanted:
        return
    emulator = {"arm64": "qemu-aarch64", "amd64": "qemu-x86_64"}[wanted]
    registered = Path("/proc/sys/fs/binfmt_misc", emulator)
    text = registered.read_text(encoding="ascii") if registered.exists() else ""
    flags = next((line for line in text.splitlines() if line.startswith("flags:")), "")
    if text.startswith("enabled") and "F" in flags.removeprefix("flags:"):
        return
    raise PermanentError(
        f"This engine runs {native} and cannot build for {architecture}: "
        + (
            f"{emulator} is registered without its flag F, so containers cannot see it"
            if text
            else f"binfmt_misc has no {emulator}"
        ),
        "Install qemu-user-static and binfmt-support, or build on a machine of that kind.",
    )


def _public_name(architecture: str, reference: str) -> BaseImage:
    digest = reference.rpartition("@")[2]
    tag = f"public-{digest.removeprefix('sha256:')[:16]}-{architecture}"
    return BaseImage(f"{REPOSITORY}:{tag}", "public", digest, architecture)


def _pull(client: docker.DockerClient, base: BaseImage, reference: str, log: Log) -> str | None:
    """Pull ``reference`` and tag it as ``base``; return the reason if that was not possible."""
    path, slash, last = reference.partition("@")[0].rpartition("/")
    # The digest alone: with a tag and a digest the SDK would pull the tag.
    pinned = f"{path}{slash}{last.partition(':')[0]}@{base.identity}"
    system = f"linux/{DOCKER_ARCHITECTURES[base.architecture]}"
    try:
        # The manifest first: an engine without a way out fails here at once.
        _within(
            REGISTRY_DEADLINE_SECONDS,
            lambda: client.api.inspect_distribution(pinned),  # type: ignore[no-untyped-call]
            "registry",
        )
        log(f"Pulling {reference} for {base.architecture}")
        image = _within(
            PULL_DEADLINE_SECONDS, lambda: client.images.pull(pinned, platform=system), "pull"
        )
        image.tag(*base.reference.split(":"))
    except (DockerException, requests.RequestException, DeadlineError) as error:
        reason = str(getattr(error, "explanation", None) or error)
        return reason.strip().splitlines()[0]
    return None


def _within(seconds: float, call: Callable[[], Any], what: str) -> Any:
    """The result of ``call``, or a :class:`DeadlineError`; a late answer is lost."""
    result: list[Any] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(call())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True, name=what)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not result:
        raise DeadlineError(f"The {what} gave no answer within {seconds:.0f} s")
    return result[0]


def _architecture_of(client: docker.DockerClient, reference: str) -> str | None:
    try:
        return str(client.images.get(reference).attrs.get("Architecture", ""))
    except ImageNotFound:
        return None


def _debian_recipe(architecture: str, suite: str) -> tuple[str, str]:
    """The hash of the recipe, and the reference that follows from it."""
    parts = [RECIPE, suite, architecture, DEBIAN_PACKAGES, DROPPED]
    recipe = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    return recipe, f"{REPOSITORY}:debian-{suite}-{recipe}-{architecture}"


def _debian_here(client: docker.DockerClient, architecture: str, suite: str) -> BaseImage | None:
    recipe, reference = _debian_recipe(architecture, suite)
    try:
        labels = client.images.get(reference).labels
    except ImageNotFound:
        return None
    if labels.get(RECIPE_LABEL) != recipe or DIGEST_LABEL not in labels:
        return None
    return BaseImage(reference, "debian", labels[DIGEST_LABEL], architecture)


def _make_debian(client: docker.DockerClient, architecture: str, suite: str, log: Log) -> BaseImage:
    recipe, reference = _debian_recipe(architecture, suite)
    with tempfile.TemporaryDirectory(prefix="gateway-lab-base-") as scratch:
        root = Path(scratch, "root")
        unpack_packages(root, architecture, suite, log)
        finish_tree(root)
        layer = Path(scratch, "layer.tar")
        digest = write_layer(root, layer)
        _load(client, reference, layer, digest, recipe, architecture)
        log(f"Base image: {reference}, {layer.stat().st_size / 1e6:.0f} MB, sha256 {digest[:16]}")
    return BaseImage(reference, "debian", digest, architecture)


def _load(
    client: docker.DockerClient,
    reference: str,
    layer: Path,
    digest: str,
    recipe: str,
    architecture: str,
) -> None:
    # An image archive, not an import: it names its architecture and has a fixed time, so the
    # same packages give the same image.
    created = "2023-11-14T22:13:20Z"
    config = {
        "architecture": DOCKER_ARCHITECTURES[architecture],
        "os": "linux",
        "created": created,
        "config": {
            "Env": ["PATH=/usr/local/bin:/usr/bin"],
            "Labels": {
                "gateway-lab.base.source": "debian",
                RECIPE_LABEL: recipe,
                DIGEST_LABEL: digest,
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created": created, "created_by": "gateway-lab"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    archive = layer.with_name("image.tar")
    with tarfile.open(archive, mode="w") as tar:
        for name, value in (("config.json", config), ("manifest.json", manifest)):
            content = json.dumps(value, sort_keys=True).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        tar.add(layer, arcname="layer.tar")
    try:
        with archive.open("rb") as file:
            client.images.load(file)
    except APIError as error:
        raise PermanentError(
            f"The Docker engine refused the base image: {error.explanation}",
            "Look at the engine's log, and at the free space of its disk.",
        ) from error
    finally:
        archive.unlink()
