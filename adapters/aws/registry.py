"""The image registry (ECR): which images it holds, by tag, digest and manifest."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from adapters.aws.errors import translate_aws_errors
from adapters.aws.session import Cloud
from lab.errors import PermanentError

if TYPE_CHECKING:
    from mypy_boto3_ecr import ECRClient

#: Types of manifests of a single image; a list of several images has no configuration.
_MANIFESTS = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
]
_UP_AGAIN = "Bring the lab up again."


@dataclass(frozen=True)
class RegistryLogin:
    """What Docker needs to push: short-lived. It must never be logged."""

    username: str
    password: str
    registry: str

    def __repr__(self) -> str:
        return f"RegistryLogin(registry={self.registry!r})"


@dataclass(frozen=True)
class HeldImage:
    """An image as the registry holds it: the digests of its manifest and its configuration."""

    digest: str
    configuration: str


class Registry:
    """The repository ``repository`` in the account's registry. May be shared between threads."""

    def __init__(self, cloud: Cloud, repository: str) -> None:
        """``cloud`` holds the repository, which need not exist yet."""
        self.repository = repository
        self._cloud = cloud

    @property
    def _ecr(self) -> ECRClient:
        return cast("ECRClient", self._cloud.client("ecr"))

    def exists(self) -> bool:
        """Whether the registry has the repository."""
        with translate_aws_errors(f"looking for the repository {self.repository}"):
            try:
                self._ecr.describe_repositories(repositoryNames=[self.repository])
            except self._ecr.exceptions.RepositoryNotFoundException:
                return False
        return True

    def digest(self, tag: str) -> str | None:
        """The digest of ``tag``, or ``None`` where it was never pushed."""
        with translate_aws_errors(f"looking for {self.repository}:{tag}"):
            try:
                found = self._ecr.describe_images(
                    repositoryName=self.repository, imageIds=[{"imageTag": tag}]
                )["imageDetails"]
            except (
                self._ecr.exceptions.ImageNotFoundException,
                self._ecr.exceptions.RepositoryNotFoundException,
            ):
                return None
        return found[0]["imageDigest"] if found else None

    def held_image(self, tag: str) -> HeldImage | None:
        """The image that the registry returns for ``tag``, or ``None`` where it holds none.

        The digest is computed from the manifest itself; PermanentError if the registry names
        another.
        """
        found = self._manifest({"imageTag": tag}, tag)
        if found is None:
            return None
        digest, manifest = found
        return HeldImage(digest, str(manifest.get("config", {}).get("digest", "")))

    def manifest(self, digest: str) -> dict[str, Any]:
        """The manifest of the image with ``digest``; PermanentError where the registry has none."""
        found = self._manifest({"imageDigest": digest}, digest)
        if found is None:
            raise PermanentError(f"the registry holds no {self.repository}@{digest}", _UP_AGAIN)
        return found[1]

    def _manifest(self, image: Any, called: str) -> tuple[str, dict[str, Any]] | None:
        with translate_aws_errors(f"reading the manifest of {self.repository}:{called}"):
            try:
                images = self._ecr.batch_get_image(
                    repositoryName=self.repository, imageIds=[image], acceptedMediaTypes=_MANIFESTS
                )["images"]
            except self._ecr.exceptions.RepositoryNotFoundException:
                return None
        if not images:
            return None
        manifest, named = images[0]["imageManifest"], images[0]["imageId"]["imageDigest"]
        digest = f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}"
        if digest != named:
            raise PermanentError(
                f"the registry names {named} for {self.repository}:{called}, "
                f"but gives out {digest}",
                "Do not run it. Remove the image from the registry and bring the lab up again.",
            )
        return digest, json.loads(manifest)

    def blob_url(self, digest: str) -> str:
        """Where a layer or a configuration can be fetched for a while. A secret: never log it."""
        with translate_aws_errors(f"asking for {digest} of {self.repository}"):
            return self._ecr.get_download_url_for_layer(
                repositoryName=self.repository, layerDigest=digest
            )["downloadUrl"]

    def login(self) -> RegistryLogin:
        """A login for the account's registry, valid for twelve hours."""
        with translate_aws_errors("logging in to the registry"):
            data = self._ecr.get_authorization_token()["authorizationData"][0]
        username, password = base64.b64decode(data["authorizationToken"]).decode().split(":", 1)
        return RegistryLogin(username, password, data["proxyEndpoint"])
