"""The real gateway in its container, within the bounds of its task: what it lets in, and what not.

Its models are a stand-in's. Needs a Docker engine, and no cloud.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator

import docker
import httpx
import pytest
from docker.models.containers import Container
from openai import BadRequestError, NotFoundError, OpenAI

from bench.containers import LABEL, Gateway, Size, gateway, hardened
from bench.stubs import host_seen_by_containers, stub
from lab import image as recipe
from lab.catalog import load_catalog
from lab.settings import Settings

SIZE = Size(2, 2048)
ALIASES = [model.alias for model in load_catalog(Settings().catalog_path).choose(None)]
ROUTES = """
import json, tempfile
tempfile.tempdir = "/tmp"
from litellm.proxy.proxy_server import app
def hidden(routes):
    for route in routes:
        inside = getattr(route, "routes", None) or getattr(
            getattr(route, "original_router", None), "routes", None
        )
        if inside:
            yield from hidden(inside)
        elif hasattr(route, "path"):
            yield route.path, sorted(getattr(route, "methods", None) or ["GET"])
told = [(path, [m.upper() for m in ways]) for path, ways in app.openapi()["paths"].items()]
print(json.dumps([*told, *hidden(app.routes)]))
"""


@pytest.fixture(scope="module")
def running(engine: docker.DockerClient, image: str) -> Iterator[Gateway]:
    """The gateway, ready."""
    with (
        stub(delay=0.001, host=host_seen_by_containers(engine)) as bedrock,
        gateway(engine, hardened(image), SIZE, bedrock) as ready,
    ):
        yield ready


@pytest.fixture(scope="module")
def container(engine: docker.DockerClient, running: Gateway) -> Container:
    (found,) = engine.containers.list(filters={"label": LABEL})
    return found


@pytest.fixture
def client(running: Gateway) -> Iterator[OpenAI]:
    with (
        running.client() as http,
        OpenAI(base_url=f"{running.url}/v1", api_key=running.key, http_client=http) as opened,  # type: ignore[arg-type]
    ):
        yield opened


def test_models_answer_through_it(client: OpenAI) -> None:
    """should list the catalogue's and answer for each, whole and streamed"""
    assert sorted(model.id for model in client.models.list()) == sorted(ALIASES)
    for alias in ALIASES:
        asked = {"model": alias, "messages": [{"role": "user", "content": "Hello"}]}
        whole = client.chat.completions.create(**asked)  # type: ignore[call-overload]
        assert whole.choices[0].message.content
        chunks = client.chat.completions.create(**asked, stream=True)  # type: ignore[call-overload]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def test_no_route_of_litellm_s_tells_anything_without_the_key(
    running: Gateway, container: Container
) -> None:
    """should answer 401 to every one of its hundreds, and alike"""
    done = container.exec_run(["python3", "-c", ROUTES])
    routes = json.loads(done.output.splitlines()[-1])
    assert len({path for path, _ in routes}) > 700
    answers = set()
    with httpx.Client(base_url=running.url, **running.options) as nobody:
        for path, methods in [*routes, ["/", ["GET"]], ["/ui/", ["GET"]], ["/nothing", ["GET"]]]:
            for method in methods:
                answer = nobody.request(method, path)
                told = "" if method == "HEAD" else answer.text
                answers.add((answer.status_code, told, answer.headers["www-authenticate"]))
    assert {status for status, _, _ in answers} == {401}
    assert len({told for _, told, _ in answers if told}) == 1


@pytest.mark.parametrize("path", ["/", "/ui/", "/docs", "/openapi.json", "/health", "/key/list"])
def test_litellm_s_own_pages_are_not_there(running: Gateway, path: str) -> None:
    """should be 404 with the key, too"""
    with running.client() as known:
        assert known.get(path).status_code == 404


def test_a_model_that_is_not_the_lab_s_is_refused(client: OpenAI) -> None:
    """should be told in OpenAI's form, for a Bedrock model by its own name, too"""
    for model in ("gpt-9", "bedrock/converse/amazon.nova-pro-v1:0"):
        with pytest.raises(BadRequestError) as caught:
            client.chat.completions.create(model=model, messages=[])
        assert isinstance(caught.value.body, dict)
        assert caught.value.body["type"] == "invalid_request_error"
        assert model in caught.value.message
    with pytest.raises(NotFoundError, match="gpt-9"):
        client.models.retrieve("gpt-9")


@pytest.mark.parametrize("name", ["api_base", "base_url", "aws_bedrock_runtime_endpoint"])
def test_nobody_leads_it_elsewhere(running: Gateway, name: str) -> None:
    """should take no address from a question: it would send its credentials there"""
    asked = {"model": ALIASES[0], "messages": [{"role": "user", "content": "Hello"}]}
    with running.client() as known:
        answer = known.post("/v1/chat/completions", json={**asked, name: "https://203.0.113.9"})
    assert answer.status_code >= 400
    assert set(answer.json()["error"]) >= {"message", "type", "param", "code"}


def test_plain_http_is_refused(running: Gateway) -> None:
    """should answer nothing that is not TLS"""
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{running.url.replace('https', 'http')}/v1/models")


def test_only_the_lab_s_name_and_authority_convince(running: Gateway) -> None:
    """should be refused by a client that asks for another lab, or trusts the usual authorities"""
    with (
        httpx.Client(verify=running.options["verify"]) as by_address,
        pytest.raises(httpx.ConnectError, match="IP address mismatch"),
    ):
        by_address.get(running.url)
    with (
        httpx.Client(verify=ssl.create_default_context()) as usual,
        pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        usual.get(running.url)


def test_the_health_check_passes(container: Container) -> None:
    """should be healthy as ECS asks"""
    assert container.exec_run(list(recipe.HEALTHCHECK_COMMAND)).exit_code == 0


def test_it_wrote_nothing_and_holds_no_right(container: Container) -> None:
    """should need no place to write and no capability, and log neither key nor certificate"""
    assert not [c for c in container.diff() or [] if not c["Path"].startswith("/sbin")]
    status = container.exec_run(
        ["python3", "-c", "print(open('/proc/1/status').read())"]
    ).output.decode()
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    environment = dict(entry.split("=", 1) for entry in container.attrs["Config"]["Env"])
    said = container.logs().decode()
    assert environment["LITELLM_MASTER_KEY"] not in said
    assert "PRIVATE KEY" not in said
    assert "Read-only file system" not in said
