"""An image's layers and a state are searched for keys, byte by byte and version by version."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from adapters.aws import secret_scan as search
from adapters.aws.secret_scan import search_image, search_state
from lab.errors import PermanentError, TransientError
from tests.unit.lab.test_leaks import GATEWAY_KEY, KEY_ID, PEM

KNOWN = {"the gateway's key": GATEWAY_KEY}


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def tar(files: Mapping[str, bytes]) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return whole.getvalue()


class Registry:
    """A registry on loopback that serves its content, and counts the requests."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.blobs: dict[str, bytes] = {}
        self.given: list[str] = []
        self.held: dict[str, Any] = {"layers": []}

    def hold(self, config: object, *layers: bytes) -> None:
        content = json.dumps(config).encode()
        self.blobs = {digest_of(blob): blob for blob in (content, *layers)}
        self.held = {
            "config": {"digest": digest_of(content)},
            "layers": [{"digest": digest_of(one), "size": len(one)} for one in layers],
        }

    def manifest(self, _: str) -> dict[str, Any]:
        return self.held

    def blob_url(self, digest: str) -> str:
        return f"{self.base}/{digest}?signature=of-a-right"


@pytest.fixture
def registry() -> Iterator[Registry]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            digest = self.path.strip("/").partition("?")[0]
            held.given.append(digest)
            content = held.blobs.get(digest)
            self.send_response(200 if content is not None else 403)
            self.end_headers()
            self.wfile.write(content or b"")

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        held = Registry(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        yield held
        server.shutdown()
        thread.join()


def look(registry: Registry, memory: Path) -> Any:
    held: Any = registry
    return search_image(held, "sha256:x", KNOWN, memory)


def test_a_clean_image_is_reported_with_what_was_searched(
    registry: Registry, tmp_path: Path
) -> None:
    """should search configuration and layers, packed or not, and report their size"""
    registry.hold({"Env": ["PORT=4000"]}, gzip.compress(tar({"a": b"x" * 1000})), tar({"b": b""}))
    found = look(registry, tmp_path / "memory.json")
    assert found.findings == ()
    assert "configuration and 2 layers" in found.looked_at
    assert len(registry.given) == 3


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (KEY_ID.encode(), "an AWS access key ID"),
        (PEM.encode(), "a private key"),
        (GATEWAY_KEY.encode(), "the gateway's key"),
    ],
)
@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_a_key_in_a_layer_is_found(
    registry: Registry, tmp_path: Path, content: bytes, kind: str, pack: Any
) -> None:
    """should name the layer and the kind, wherever in the layer the key is"""
    layer = pack(tar({"opt/x": b"." * 3_000_000 + b"\n" + content + b"\n" + b"." * 2_000_000}))
    registry.hold({}, gzip.compress(tar({"a": b""})), layer)
    found = look(registry, tmp_path / "memory.json")
    assert found.findings == (f"{kind} in layer {digest_of(layer)}",)


def test_a_key_in_the_history_is_found(registry: Registry, tmp_path: Path) -> None:
    """should search each step of the build, and the environment"""
    registry.hold({"history": [{"created_by": f"ENV KEY={KEY_ID}"}]})
    found = look(registry, tmp_path / "memory.json")
    assert found.findings == ("an AWS access key ID in the image's configuration",)


def test_several_archives_in_one_layer_are_all_searched(registry: Registry, tmp_path: Path) -> None:
    """should not stop after the first archive"""
    registry.hold({}, gzip.compress(b"first") + gzip.compress(PEM.encode()))
    assert look(registry, tmp_path / "memory.json").findings


def test_a_large_layer_is_searched_once(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """should remember a large layer, search small ones each time, and report it"""
    monkeypatch.setattr(search, "SMALL", 3000)
    large, small = tar({"a": b"x" * 20_000}), gzip.compress(tar({"b": b"y"}))
    registry.hold({}, large, small)
    memory = tmp_path / "home" / "memory.json"
    look(registry, memory)
    registry.given.clear()
    again = look(registry, memory)
    assert digest_of(large) not in registry.given
    assert digest_of(small) in registry.given
    assert "1 layers" in again.looked_at
    assert "1 that were searched before" in again.looked_at
    monkeypatch.setattr(search, "SEARCH_FORM", search.SEARCH_FORM + 1)
    look(registry, memory)
    assert digest_of(large) in registry.given
    memory.write_text("half a fil", encoding="utf-8")
    assert look(registry, memory).findings == ()


def test_a_layer_with_a_key_is_not_remembered(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """should find the key each time"""
    monkeypatch.setattr(search, "SMALL", 0)
    registry.hold({}, tar({"a": PEM.encode()}))
    for _ in range(2):
        assert look(registry, tmp_path / "memory.json").findings


def test_a_layer_of_another_digest_is_refused(registry: Registry, tmp_path: Path) -> None:
    """should compare the content with its digest"""
    layer = tar({"a": b"x"})
    registry.hold({}, layer)
    registry.blobs[digest_of(layer)] = tar({"a": b"y"})
    with pytest.raises(PermanentError, match="gives out something else"):
        look(registry, tmp_path / "memory.json")


@pytest.mark.parametrize("layer", [b"\x28\xb5\x2f\xfdxyz", b"\x1f\x8bnot at all"])
def test_an_unreadable_layer_is_not_taken_for_clean(
    registry: Registry, tmp_path: Path, layer: bytes
) -> None:
    """should say that it cannot be read"""
    registry.hold({}, layer)
    with pytest.raises(PermanentError, match="cannot be"):
        look(registry, tmp_path / "memory.json")


def test_a_refusal_shows_no_address(registry: Registry, tmp_path: Path) -> None:
    """should be worth another try, and not show an address that grants access"""
    registry.hold({}, b"x")
    registry.blobs.clear()
    with pytest.raises(TransientError, match="HTTP 403") as raised:
        look(registry, tmp_path / "memory.json")
    assert "signature" not in str(raised.value)
    registry.base = "http://127.0.0.1:1"
    with pytest.raises(TransientError, match="did not give out") as raised:
        look(registry, tmp_path / "memory.json")
    assert "signature" not in str(raised.value)


class Bucket:
    """The versions of a state, newest first; an empty one was removed meanwhile."""

    name = "bucket"

    def __init__(self, *versions: bytes) -> None:
        self.versions = versions

    def read(self, _: str) -> tuple[bytes, str] | None:
        return (self.versions[0], "etag") if self.versions else None

    def earlier_versions(self, _: str) -> list[str]:
        return [str(n) for n in range(1, len(self.versions))]

    def read_version(self, _: str, version: str) -> bytes:
        return self.versions[int(version)]


def state(*versions: bytes) -> Any:
    bucket: Any = Bucket(*versions)
    return search_state(bucket, "labs/demo/terraform.tfstate", KNOWN)


def test_a_clean_state_is_reported_with_its_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """should search the current version and older ones, and report how many"""
    found = state(b"{}", b"{}", b"")
    assert found.findings == ()
    assert found.looked_at == "the state and 2 versions before it"
    monkeypatch.setattr(search, "MOST_VERSIONS", 1)
    assert state(b"{}", b"{}", b"").looked_at == "the state and 1 versions before it, of 2"


def test_a_key_in_any_version_of_the_state_is_found() -> None:
    """should find a private key in JSON, and the gateway's key in an old version"""
    held = json.dumps({"secret_string": PEM}).encode()
    assert state(held).findings == ("a private key in the state",)
    assert state(b"{}", b"{}", GATEWAY_KEY.encode()).findings == (
        "the gateway's key in version 2 of the state",
    )


def test_a_lab_without_a_state_is_an_error() -> None:
    """should not be taken for a clean one"""
    with pytest.raises(PermanentError, match=r"terraform\.tfstate"):
        state()
