"""One gateway in one container, within the limits that a Fargate task of its size would have.

The limits are Docker's own, because the local cloud applies none. All differences between the lab's
image and the reference's are in :func:`ours` and :func:`seed`.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import docker
import httpx
from docker.models.containers import Container

from adapters.gateway.client import pinned
from bench.images import Builder
from bench.load import Question
from lab import names
from lab.certificate import make_certificate
from lab.durations import now
from lab.endpoint import Endpoint
from lab.errors import PermanentError
from lab.image.recipe import GATEWAY_USER
from lab.waiting import wait_for

#: A bench finds by this label what a killed bench has left.
LABEL = "gateway-lab.bench"
PORT = 4000
LAB = "bench"
READY_SECONDS = 300.0
LAST_WORDS = 15


@dataclass(frozen=True)
class Size:
    """A task size: a share of a CPU, and memory in MiB."""

    vcpu: float
    memory: int

    def __str__(self) -> str:
        return f"{self.vcpu:g} vCPU and {self.memory} MB"


@dataclass(frozen=True)
class Variant:
    """An image, the environment that its container needs, and how to call it."""

    image: str
    key: str = field(repr=False)
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    scheme: str = "http"
    #: httpx's options for its client; without httpx, the authority to trust and the name to expect.
    client: dict[str, Any] = field(default_factory=dict)
    ca: str = ""
    tls_name: str = ""
    #: What its task definition denies the container.
    hardening: dict[str, Any] = field(default_factory=dict)


def ours(builder: Builder) -> Variant:
    """The lab's gateway."""
    return hardened(builder.ours())


def hardened(image: str) -> Variant:
    """The lab's gateway in ``image``, with a certificate and within the bounds of its task."""
    at = now()
    certificate = make_certificate(names.tls_name(LAB), at, at + timedelta(hours=1))
    return Variant(
        image,
        _key(),
        environment={
            "GATEWAY_TLS_PEM": certificate.pem,
            "GATEWAY_TLS_NAME": names.tls_name(LAB),
        },
        scheme="https",
        client=pinned(Endpoint.of(LAB, "127.0.0.1", certificate.trust.ca)),
        ca=certificate.trust.ca,
        tls_name=names.tls_name(LAB),
        hardening={
            "user": f"{GATEWAY_USER}:{GATEWAY_USER}",
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
        },
    )


def seed(builder: Builder) -> Variant:
    """The reference's gateway: stock LiteLLM."""
    return Variant(builder.seed(), _key())


@dataclass
class Gateway:
    """A gateway that reported ready, ``seconds`` after its container was started."""

    url: str
    seconds: float
    key: str = field(repr=False)
    options: dict[str, Any]
    _container: Container
    _variant: Variant = field(repr=False)

    @property
    def endpoint(self) -> Endpoint:
        """Where it answers, and how its callers recognise it, if it speaks TLS."""
        return Endpoint(url=self.url, tls_name=self._variant.tls_name, ca=self._variant.ca)

    def client(self, **options: Any) -> httpx.Client:
        """A client with the key, whose URLs begin at the gateway's."""
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=60.0,
            **self.options,
            **options,
        )

    def question(self, *, stream: bool = False) -> Question:
        """A chat of one message, for :func:`bench.load.load`."""
        body = json.dumps({**chat(), "stream": stream})
        url = f"{self.url}/v1/chat/completions"
        return Question(url, body, self.key, self._variant.ca, self._variant.tls_name)

    def cpu_seconds(self) -> float:
        """The processor time that the container has used since its start."""
        said: Any = self._container.stats(stream=False)
        return float(said["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9

    def memory_megabytes(self) -> float:
        """The container's own memory, without the files that the system caches for it."""
        said: Any = self._container.stats(stream=False)
        found = said["memory_stats"]["stats"]
        # The second is its name in the first version of control groups.
        return float(found["anon"] if "anon" in found else found["total_rss"]) / 1e6

    def ask(self, requests: int, at_once: int) -> None:
        """Get ``requests`` whole answers, ``at_once`` of them at a time.

        Raises PermanentError for the first answer with an error.
        """

        def one(_: int) -> None:
            response = client.post("/v1/chat/completions", json=chat())
            if response.status_code != httpx.codes.OK:
                raise PermanentError(
                    f"{self.url} answered HTTP {response.status_code}: {response.text[:300]}"
                )

        with self.client() as client, ThreadPoolExecutor(at_once) as pool:
            list(pool.map(one, range(requests)))


def chat() -> dict[str, Any]:
    """A question that both sides' configurations have a model for."""
    return {"model": "bedrock-llama", "messages": [{"role": "user", "content": "Hello"}]}


@contextmanager
def gateway(
    client: docker.DockerClient, variant: Variant, size: Size, bedrock: str = ""
) -> Iterator[Gateway]:
    """A ready gateway of ``variant`` at ``size`` within the block; its models are at ``bedrock``.

    Raises PermanentError with the container's last words if it ends, DeadlineError if it is not
    ready in time.
    """
    container = client.containers.create(
        variant.image,
        environment={
            "LITELLM_MASTER_KEY": variant.key,
            # Bedrock's stand-in checks no credentials, but LiteLLM needs some.
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",  # pragma: allowlist secret: opens nothing
            "AWS_REGION": "us-east-1",
            "AWS_BEDROCK_RUNTIME_ENDPOINT": bedrock,
            **variant.environment,
        },
        nano_cpus=round(size.vcpu * 1e9),
        mem_limit=f"{size.memory}m",
        memswap_limit=f"{size.memory}m",
        ports={f"{PORT}/tcp": ("127.0.0.1", 0)},
        labels={LABEL: "container"},
        init=True,
        **variant.hardening,
    )
    try:
        began = time.monotonic()
        container.start()
        container.reload()
        port = (container.ports[f"{PORT}/tcp"] or [{}])[0]["HostPort"]
        url = f"{variant.scheme}://127.0.0.1:{port}"
        with httpx.Client(
            timeout=5.0, headers={"Authorization": f"Bearer {variant.key}"}, **variant.client
        ) as http:
            wait_for(
                f"the readiness of {variant.image}",
                _readiness(http, f"{url}/health/readiness", container),
                deadline=READY_SECONDS,
                first_pause=0.05,
                longest_pause=0.05,
            )
        seconds = time.monotonic() - began
        yield Gateway(url, seconds, variant.key, variant.client, container, variant)
    finally:
        container.remove(force=True, v=True)


def remove_leftovers(client: docker.DockerClient) -> None:
    """Remove the containers of a bench that was killed."""
    for container in client.containers.list(all=True, filters={"label": LABEL}):
        container.remove(force=True, v=True)


def _readiness(http: httpx.Client, url: str, container: Container) -> Callable[[], bool | None]:
    def check() -> bool | None:
        try:
            if http.get(url).status_code == httpx.codes.OK:
                return True
        except httpx.TransportError:
            pass
        container.reload()
        if container.status == "exited":
            words = container.logs(tail=LAST_WORDS).decode(errors="replace").strip()
            code = container.attrs["State"]["ExitCode"]
            raise PermanentError(f"the container ended with exit code {code}:\n{words}")
        return None

    return check


def _key() -> str:
    return f"sk-{secrets.token_urlsafe(24)}"
