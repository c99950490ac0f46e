"""The inputs of the project's images, and the tags that follow from them.

The tag of an image is the hash of everything that goes into it, so an image whose tag exists
needs no build and no push. This module may only read and copy files: other modules fetch wheels
and build images.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import InvalidInputError
from lab.settings import ROOT

DOCKER_FOLDER = ROOT / "docker"
SHARED_FOLDER = DOCKER_FOLDER / "build"
LOCK_NAME = "requirements.lock"
CONFIG_NAME = "config.yaml"
SBOM_NAME = "sbom.cdx.json"
# Installs the wheels inside the builder, and is not kept in the image.
INSTALLER = "pip"

# Paths in the gateway's image; health checks and issue reports name them.
GATEWAY_USER = 65532
SITE_PATH = "/opt/gateway/site"
CONFIG_PATH = "/opt/gateway/config.yaml"
SBOM_PATH = f"/usr/share/sbom/{SBOM_NAME}"
HEALTHCHECK_COMMAND = ("python3", "-I", "/opt/gateway/healthcheck.py")

# The time of every file in a context; the build gives it to the files that it installs too.
TIMESTAMP = 1_700_000_000
# Raise it when the output of lab/image/sbom.py changes: the document is a part of the image.
SBOM_FORM = 1
# The wheels are chosen for Debian bookworm's Python and C library. The public Python image has a
# newer 3.11; the extra wheels that the older one needs do no harm there.
PYTHON_VERSION = "3.11.2"
GLIBC_MINOR = 36
OLDEST_GLIBC_MINOR = {"x86_64": 5, "arm64": 17}
PLATFORMS = {"x86_64": "linux/amd64", "arm64": "linux/arm64"}
TAG_LENGTH = 24


@dataclass(frozen=True)
class ImageRecipe:
    """A folder with a Dockerfile and the files its build takes, Dockerfile and lock among them.

    ``configured``: the image also holds a configuration and its bill of materials, two texts
    which come from the caller.
    """

    folder: Path
    files: tuple[str, ...]
    configured: bool

    @property
    def lock(self) -> Path:
        """The hashed lock of the wheels in the image."""
        return self.folder / LOCK_NAME


GATEWAY = ImageRecipe(
    DOCKER_FOLDER / "gateway",
    (
        *("Dockerfile", LOCK_NAME, "pruned.txt"),
        *("authentication.py", "deferred.py", "healthcheck.py", "serve.py"),
    ),
    configured=True,
)
LOCAL_CLOUD = ImageRecipe(
    DOCKER_FOLDER / "localcloud",
    (
        "Dockerfile",
        LOCK_NAME,
        "authorization.py",
        "calls.py",
        "completion.py",
        "containers.py",
        "serve.py",
    ),
    configured=False,
)


def image_tag(
    recipe: ImageRecipe, *, base_identity: str, architecture: str, config_text: str | None = None
) -> str:
    """The tag of the image that these inputs give: 24 hexadecimal digits.

    Equal inputs give the same tag on any machine; any changed byte gives another tag. The bill of
    materials is not an input: it follows from lock, base and architecture. Raises
    :class:`InvalidInputError` when the text is missing or not wanted, or the architecture unknown.
    """
    _check(recipe, architecture, config_text)
    parts = {f"file {name}": (recipe.folder / name).read_bytes() for name in recipe.files}
    parts |= {f"shared {path.name}": path.read_bytes() for path in _shared_files()}
    parts["base"] = base_identity.encode()
    parts["architecture"] = architecture.encode()
    target = [PYTHON_VERSION, GLIBC_MINOR, OLDEST_GLIBC_MINOR[architecture], TIMESTAMP]
    parts["target"] = json.dumps(target).encode()
    if config_text is not None:
        parts["config"] = config_text.encode()
        parts["sbom"] = str(SBOM_FORM).encode()
    whole = hashlib.sha256()
    for name in sorted(parts):
        # Each part follows its length, so that no two sets of inputs give the same bytes.
        for piece in (name.encode(), parts[name]):
            whole.update(len(piece).to_bytes(8, "big") + piece)
    return whole.hexdigest()[:TAG_LENGTH]


def prepare_context(
    recipe: ImageRecipe,
    target: Path,
    wheels: Iterable[Path],
    *,
    config_text: str | None = None,
    sbom_text: str | None = None,
) -> Path:
    """Make ``target`` the build context: the recipe's files, the wheels and the texts.

    On return it holds these and nothing else, whatever was there before. Wheels are hard links
    where the file system allows it, so the context needs no second copy. Raises
    :class:`InvalidInputError` when a text is missing or not wanted.
    """
    _check(recipe, None, config_text)
    if recipe.configured != (sbom_text is not None):
        need = "needs a bill of materials" if recipe.configured else "takes none"
        raise InvalidInputError(f"The image of {recipe.folder.name} {need}")
    if target.exists():
        shutil.rmtree(target)
    (target / "build").mkdir(parents=True)
    (target / "wheels").mkdir()
    for name in recipe.files:
        shutil.copyfile(recipe.folder / name, target / name)
    for path in _shared_files():
        shutil.copyfile(path, target / "build" / path.name)
    for wheel in wheels:
        _link(wheel, target / "wheels" / wheel.name)
    for name, text in ((CONFIG_NAME, config_text), (SBOM_NAME, sbom_text)):
        if text is not None:
            (target / name).write_text(text, encoding="utf-8")
    for path in (*target.glob("*"), *(target / "build").glob("*")):
        # The same modes and times everywhere: two builds of the same inputs have equal files.
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (TIMESTAMP, TIMESTAMP))
    return target


def build_arguments(
    context: Path,
    *,
    base_reference: str,
    architecture: str,
    labels: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The arguments of the Docker SDK's ``api.build`` for a prepared context, without the name.

    No network, nothing pulled (the base is local), no intermediate container left behind.
    Raises :class:`InvalidInputError` for an unknown architecture.
    """
    if architecture not in PLATFORMS:
        raise InvalidInputError(
            f"Unknown architecture {architecture!r}", f"Choose one of {', '.join(PLATFORMS)}."
        )
    return {
        "path": str(context),
        "dockerfile": "Dockerfile",
        "buildargs": {"BASE": base_reference},
        "network_mode": "none",
        "platform": PLATFORMS[architecture],
        "labels": dict(labels or {}),
        "pull": False,
        "rm": True,
        "forcerm": True,
    }


def _check(recipe: ImageRecipe, architecture: str | None, config_text: str | None) -> None:
    if architecture is not None and architecture not in PLATFORMS:
        raise InvalidInputError(
            f"Unknown architecture {architecture!r}", f"Choose one of {', '.join(PLATFORMS)}."
        )
    if recipe.configured != (config_text is not None):
        need = "needs a configuration" if recipe.configured else "takes no configuration"
        raise InvalidInputError(f"The image of {recipe.folder.name} {need}")


def _shared_files() -> list[Path]:
    return sorted(SHARED_FOLDER.glob("*.py"))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
