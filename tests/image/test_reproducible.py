"""Two builds of the same inputs give the same files: the image's tag stands for its content.

Needs a Docker engine and the package index, and no cloud. One build without the engine's cache is
compared with the image that this machine has under the tag, or with another build if it has none.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import docker
import pytest
from packaging.utils import canonicalize_name

from lab.image import recipe
from tests.gateway import Inputs, forget

SHOWN_AT_MOST = 20


@dataclass(frozen=True)
class Entry:
    """A file as the image has it; ``content`` is a hash, or where a link points to."""

    kind: str
    mode: int
    owner: tuple[int, int]
    time: float
    content: str


def tree_of(engine: docker.DockerClient, reference: str, scratch: Path) -> dict[str, Entry]:
    """Every path of the image after all its layers, one after another."""
    saved = scratch / "image.tar"
    with saved.open("wb") as file:
        for chunk in engine.images.get(reference).save():
            file.write(chunk)
    found: dict[str, Entry] = {}
    with tarfile.open(saved) as archive:
        (manifest,) = json.load(member(archive, "manifest.json"))
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=member(archive, layer)) as tar:
                for entry in tar:
                    assert not Path(entry.name).name.startswith(".wh."), "a layer takes files away"
                    found[entry.name] = read(tar, entry)
    saved.unlink()
    return found


def member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    file = archive.extractfile(name)
    assert file is not None, name
    return file


def read(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> Entry:
    content = entry.linkname
    if entry.isfile():
        content = hashlib.file_digest(member(tar, entry.name), "sha256").hexdigest()  # type: ignore[arg-type]
    owner = (entry.uid, entry.gid)
    return Entry(entry.type.decode(), entry.mode, owner, entry.mtime, content)


@pytest.fixture(scope="module")
def built(
    engine: docker.DockerClient,
    inputs: Inputs,
    image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, str]]:
    """Two images of the same inputs, by name: built at other times, under another umask."""
    before = os.umask(0o077)
    try:
        second = inputs.build(engine, "second", tmp_path_factory.mktemp("contexts") / "second")
    finally:
        os.umask(before)
    yield image, second
    forget(engine, "second")


@pytest.fixture(scope="module")
def trees(
    engine: docker.DockerClient, built: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Entry], dict[str, Entry]]:
    scratch = tmp_path_factory.mktemp("saved")
    first, second = (tree_of(engine, reference, scratch) for reference in built)
    return first, second


def test_two_builds_have_equal_files(trees: tuple[dict[str, Entry], dict[str, Entry]]) -> None:
    """should have the same paths, contents, modes, owners and times, folders included"""
    first, second = trees
    assert len(first) > 5000
    different = [
        f"{path}: {first.get(path)} / {second.get(path)}"
        for path in sorted(first.keys() | second.keys())
        if first.get(path) != second.get(path)
    ]
    shown = "\n".join(different[:SHOWN_AT_MOST])
    assert not different, f"{len(different)} paths differ:\n{shown}"


def test_two_builds_have_the_same_settings(
    engine: docker.DockerClient, built: tuple[str, str]
) -> None:
    """should have equal settings, except the labels that name the inputs of our build"""

    def settings(reference: str) -> dict[str, Any]:
        config = dict(engine.images.get(reference).attrs["Config"])
        return {k: v for k, v in config.items() if k not in {"Labels", "Image", "Hostname"}}

    first, second = (settings(reference) for reference in built)
    assert first == second


def test_every_file_has_the_same_time(trees: tuple[dict[str, Entry], dict[str, Entry]]) -> None:
    """should be true also where a layer adds a file to a folder of another layer"""
    late = {path: entry.time for path, entry in trees[1].items() if entry.time != recipe.TIMESTAMP}
    assert not late


def test_no_file_can_change_the_user(trees: tuple[dict[str, Entry], dict[str, Entry]]) -> None:
    """should have no set-user-id and no set-group-id file, and let only root write"""
    set_id = stat.S_ISUID | stat.S_ISGID
    assert not [path for path, entry in trees[1].items() if entry.mode & set_id]
    assert {entry.owner for entry in trees[1].values()} == {(0, 0)}
    writable = [p for p, e in trees[1].items() if e.kind != "2" and e.mode & 0o022]
    assert [path.rstrip("/") for path in writable] == ["tmp"]


def test_the_image_holds_its_bill_of_materials(
    inputs: Inputs, trees: tuple[dict[str, Entry], dict[str, Entry]]
) -> None:
    """should hold exactly that file, and install exactly the wheels that it names"""
    tree = trees[1]
    here = tree[recipe.SBOM_PATH.lstrip("/")]
    assert here.content == hashlib.sha256(inputs.sbom.encode()).hexdigest()
    site = recipe.SITE_PATH.lstrip("/") + "/"
    installed = {
        canonicalize_name(path.removeprefix(site).partition("-")[0])
        for path in tree
        if path.startswith(site) and path.endswith(".dist-info/METADATA")
    }
    listed = {
        component["name"]
        for component in json.loads(inputs.sbom)["components"]
        if component.get("purl", "").startswith("pkg:pypi/")
    }
    assert installed == listed
