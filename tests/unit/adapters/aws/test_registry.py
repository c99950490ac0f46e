"""The registry knows which image it holds, and an image is identified by its content."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

from adapters.aws.registry import HeldImage, Registry, RegistryLogin
from lab.errors import PermanentError
from tests.unit.adapters.aws.stubs import Stubs

MANIFEST = json.dumps({"schemaVersion": 2, "config": {"digest": "sha256:0c"}})
DIGEST = f"sha256:{hashlib.sha256(MANIFEST.encode()).hexdigest()}"


@pytest.fixture
def registry(stubs: Stubs) -> Registry:
    return Registry(stubs.cloud, "repo")


def holds(stubs: Stubs, digest: str) -> None:
    image = {"imageManifest": MANIFEST, "imageId": {"imageDigest": digest, "imageTag": "tag"}}
    stubs.says("ecr", "batch_get_image", {"images": [image], "failures": []})


@pytest.mark.parametrize("code", ["ImageNotFoundException", "RepositoryNotFoundException"])
def test_an_image_never_pushed_has_no_digest(stubs: Stubs, registry: Registry, code: str) -> None:
    """should be None if image or repository is missing"""
    stubs.fails("ecr", "describe_images", code)
    assert registry.digest("tag") is None


def test_a_pushed_image_has_a_digest(stubs: Stubs, registry: Registry) -> None:
    """should be the registry's digest"""
    stubs.says("ecr", "describe_images", {"imageDetails": [{"imageDigest": "sha256:01"}]})
    assert registry.digest("tag") == "sha256:01"


def test_a_held_image_is_identified_by_its_manifest(stubs: Stubs, registry: Registry) -> None:
    """should be the digest of the manifest, and that of the configuration in it"""
    holds(stubs, DIGEST)
    assert registry.held_image("tag") == HeldImage(DIGEST, "sha256:0c")


def test_a_manifest_of_another_digest_is_refused(stubs: Stubs, registry: Registry) -> None:
    """should name both: the digest in the registry's answer and that of its content"""
    holds(stubs, "sha256:bad")
    with pytest.raises(PermanentError) as caught:
        registry.held_image("tag")
    assert "sha256:bad" in caught.value.message
    assert DIGEST in caught.value.message


def test_an_image_never_pushed_is_not_held(stubs: Stubs, registry: Registry) -> None:
    """should be None if image or repository is missing"""
    failure = {"imageId": {"imageTag": "tag"}, "failureCode": "ImageNotFound"}
    stubs.says("ecr", "batch_get_image", {"images": [], "failures": [failure]})
    assert registry.held_image("tag") is None
    stubs.fails("ecr", "batch_get_image", "RepositoryNotFoundException")
    assert registry.held_image("tag") is None


def test_a_manifest_is_checked_against_its_digest(stubs: Stubs, registry: Registry) -> None:
    """should be read by its digest, and refused if its content has another"""
    text = '{"layers": []}'
    digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    for named in (digest, "sha256:other"):
        image = {"imageManifest": text, "imageId": {"imageDigest": named}}
        stubs.says("ecr", "batch_get_image", {"images": [image]})
    assert registry.manifest(digest) == {"layers": []}
    with pytest.raises(PermanentError, match="gives out"):
        registry.manifest("sha256:other")
    stubs.says("ecr", "batch_get_image", {"images": []})
    with pytest.raises(PermanentError, match="holds no repo@sha256:x"):
        registry.manifest("sha256:x")


def test_a_layers_address_is_the_registrys(stubs: Stubs, registry: Registry) -> None:
    """should ask for one layer of the repository"""
    stubs.says(
        "ecr",
        "get_download_url_for_layer",
        {"downloadUrl": "https://example.com/x", "layerDigest": "sha256:x"},
        repositoryName="repo",
        layerDigest="sha256:x",
    )
    assert registry.blob_url("sha256:x") == "https://example.com/x"


def test_registry_login_hides_its_password(stubs: Stubs, registry: Registry) -> None:
    """should be readable by Docker and not by a log"""
    token = base64.b64encode(b"AWS:pass:word").decode()
    data = [{"authorizationToken": token, "proxyEndpoint": "https://r"}]
    stubs.says("ecr", "get_authorization_token", {"authorizationData": data})
    login = registry.login()
    assert login == RegistryLogin("AWS", "pass:word", "https://r")
    assert "pass:word" not in f"{login} {login!r} {[login]}"
