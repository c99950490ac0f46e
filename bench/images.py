"""The two images that are compared: builds, finds, measures and removes them.

Both are built without a network on one base image, from wheels that are on this machine.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

import docker
from docker.errors import APIError, ImageNotFound

from adapters.aws.session import Cloud
from adapters.image.base_image import PUBLIC_PYTHON, BaseImage, ensure_base_image, read_contents
from adapters.image.engine import connect, has_image
from adapters.image.wheels import fetch_wheels, read_lock, sha256_of
from lab import names
from lab.errors import PermanentError
from lab.image import recipe
from lab.image.contents import WheelFile
from lab.image.recipe import ImageRecipe
from lab.image.sbom import write_sbom
from lab.models.catalog import load_catalog
from lab.models.render import litellm_config
from lab.settings import Settings
from workstation.localcloud import REGISTRY_HOST

Log = Callable[[str], None]

#: The name of everything of the reference: repository, cluster, service.
SEED = "gateway-lab-bench-seed"
SEED_IMAGE = f"{REGISTRY_HOST}/{SEED}:latest"
SEED_RECIPE = ImageRecipe(
    Path(__file__).resolve().parent / "seed",
    ("Dockerfile", "requirements.lock", "install.py", "config.yaml"),
    configured=False,
)
#: Steps that only the builds of our image and of the reference's have.
_OUR_STEPS = ("/build/install_site.py", "/build/make_rootfs.py")
_SEED_STEPS = ("/build/install.py",)


class Builder:
    """Builds either image on this machine. ``home`` holds contexts, ``wheels`` the wheels."""

    def __init__(self, client: docker.DockerClient, home: Path, wheels: Path, log: Log) -> None:
        self._client, self._home, self._wheels, self._log = client, home, wheels, log
        self.architecture = Settings().architecture

    def prepare(self) -> None:
        """On return base image and wheels of both are on this machine: this is not timed."""
        self._base()
        for lock in (recipe.GATEWAY.lock, SEED_RECIPE.lock):
            fetch_wheels(lock, self.architecture, self._wheels, self._log)

    def ours(self) -> str:
        """The lab's image, for the models of the catalogue; built if it is not there."""
        base = self._base()
        config = litellm_config(load_catalog(Settings().catalog_path).choose(None))
        tag = recipe.image_tag(
            recipe.GATEWAY,
            base_identity=base.identity,
            architecture=self.architecture,
            config_text=config,
        )
        reference = f"{REGISTRY_HOST}/{names.repository_name()}:{tag}"
        labels = {"gateway-lab.base": base.source, "gateway-lab.inputs": tag}
        if not has_image(self._client, reference, labels):
            self._build(recipe.GATEWAY, reference, base, config, labels)
        return reference

    def seed(self, *, always_build: bool = False) -> str:
        """The reference's image; built if it is not there, or with ``always_build``.

        What the engine still has of an earlier build is used again, as for the seed.
        """
        if always_build or not has_image(self._client, SEED_IMAGE, {}):
            self._build(SEED_RECIPE, SEED_IMAGE, self._base(), None, {})
        return SEED_IMAGE

    def _bill(self, tag: str, base: BaseImage, wheels: list[Path]) -> str:
        """The bill of materials of the lab's image, as the lab itself writes it."""
        entries = read_lock(recipe.GATEWAY.lock, self.architecture)
        installed = [
            WheelFile(entry.name, str(entry.version), wheel.name, sha256_of(wheel))
            for entry, wheel in zip(entries, wheels, strict=True)
            if entry.name != recipe.INSTALLER
        ]
        return write_sbom(tag, installed, read_contents(self._client, base.reference))

    def _base(self) -> BaseImage:
        return ensure_base_image(
            self._client,
            self.architecture,
            public_reference=PUBLIC_PYTHON if Settings().public_base_image else None,
            log=lambda _: None,
        )

    def _build(
        self,
        made_of: ImageRecipe,
        reference: str,
        base: BaseImage,
        config: str | None,
        labels: Mapping[str, str],
    ) -> None:
        wheels = fetch_wheels(made_of.lock, self.architecture, self._wheels, lambda _: None)
        tag = reference.rpartition(":")[2]
        context = recipe.prepare_context(
            made_of,
            self._home / "build" / made_of.folder.name,
            wheels,
            config_text=config,
            sbom_text=self._bill(tag, base, wheels) if made_of.configured else None,
        )
        last = ""
        try:
            for event in self._client.api.build(
                tag=reference,
                decode=True,
                **recipe.build_arguments(
                    context,
                    base_reference=base.reference,
                    architecture=base.architecture,
                    labels=labels,
                ),
            ):
                if "error" in event:
                    raise PermanentError(
                        f"{reference} could not be built: {str(event['error']).strip()}",
                        f"The last words of the build: {last}",
                    )
                last = str(event.get("stream", "")).strip() or last
        finally:
            shutil.rmtree(context, ignore_errors=True)


def built_here(client: docker.DockerClient) -> set[str]:
    """The tags of our images in this engine, including the reference's."""
    return {tag for image in client.images.list() for tag in image.tags if _is_built(tag)}


def forget_builds(log: Log, keep: Collection[str] = ()) -> None:
    """On return the engine has neither our image nor the reference's, nor any layer of a build.

    The engine's builder takes layers from any image it has, so the unnamed images of a build's
    stages are removed too. Wheels, base image and the images in ``keep`` with their stages stay.
    """
    steps = _SEED_STEPS if keep else _OUR_STEPS + _SEED_STEPS
    client = connect()
    try:
        for tag in sorted(built_here(client) - set(keep)):
            client.images.remove(tag, force=True)
            log(f"Removed {tag}")
        for image in client.images.list(filters={"dangling": True}):
            # It may have been removed with another one that was made from it.
            with suppress(ImageNotFound):
                history = " ".join(str(step.get("CreatedBy", "")) for step in image.history())
                if any(step in history for step in steps):
                    client.images.remove(str(image.id), force=True)
    except APIError as error:
        raise PermanentError(f"the engine keeps an image: {error.explanation}") from error
    finally:
        client.close()


def _is_built(tag: str) -> bool:
    name = tag.rpartition(":")[0]
    return name in {f"{REGISTRY_HOST}/{SEED}", f"{REGISTRY_HOST}/{names.repository_name()}"}


def compressed_megabytes(cloud: Cloud, repository: str, tag: str) -> float:
    """The size of what every Fargate task pulls from the registry: layers and configuration.

    Raises PermanentError if the registry has no such image.
    """
    found = cloud.client("ecr").batch_get_image(
        repositoryName=repository,
        imageIds=[{"imageTag": tag}],
        acceptedMediaTypes=[
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.oci.image.manifest.v1+json",
        ],
    )["images"]
    if not found:
        raise PermanentError(f"the registry has no {repository}:{tag}")
    manifest = json.loads(found[0]["imageManifest"])
    parts = [manifest["config"], *manifest["layers"]]
    return sum(int(part["size"]) for part in parts) / 1e6
