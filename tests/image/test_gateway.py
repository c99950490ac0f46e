"""The real gateway in its container, with its task's limits: which requests it accepts and refuses.

A stand-in serves its models. Needs a Docker engine, and no cloud.
"""

from __future__ import annotations

import ast
import json
import re
import ssl
import zipfile
from collections.abc import Iterator
from pathlib import Path

import docker
import httpx
import pytest
from docker.models.containers import Container
from openai import BadRequestError, NotFoundError, OpenAI

from bench.containers import LABEL, Gateway
from bench.stubs import NOT_FOUND, USAGE
from lab.image import recipe
from lab.models.catalog import load_catalog
from lab.settings import Settings
from tests.gateway import Inputs

ALIASES = [model.alias for model in load_catalog(Settings().catalog_path).choose(None)]
#: A route as LiteLLM's sources declare it.
ROUTE = re.compile(
    r"""@\w+\.(get|post|put|patch|delete|head|options)\(\s*(?:path=)?f?["'](/[^"']*)"""
)
#: What the gateway's start leaves out, and every name that was imported from it.
LEFT_OUT = """
import json, sys, tempfile
tempfile.tempdir = "/tmp"
import deferred, serve
deferred.defer(serve.is_served)
from litellm.proxy.proxy_server import app
print(json.dumps({
    "deferred": [*deferred.DEFERRED, *deferred.IMPORTED, *deferred.REFUSED],
    "loaded": sorted(deferred._LOADED),
    "names": [(stand_in.__module__, stand_in.__name__) for stand_in in deferred.STAND_INS],
}))
"""
#: What LiteLLM answers without the gate: to the key, to another key and to no key.
WITHOUT_THE_GATE = """
import asyncio, json, os, tempfile
tempfile.tempdir = "/tmp"
import serve
app = serve._import_app()
import httpx
async def ask():
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            for key in (os.environ["LITELLM_MASTER_KEY"], "sk-another", ""):
                headers = {"Authorization": f"Bearer {key}"} if key else {}
                yield (await client.get("/v1/models", headers=headers)).status_code
async def collect():
    return [status async for status in ask()]
print(json.dumps(asyncio.run(collect())))
"""


class Sources:
    """What the wheels' modules define; the image has no sources."""

    def __init__(self, wheels: list[Path]) -> None:
        self._files: dict[str, Path] = {}
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                self._files |= dict.fromkeys(archive.namelist(), wheel)

    def have(self, module: str) -> bool:
        """Whether there is such a module or package."""
        path = module.replace(".", "/")
        return any(name == f"{path}.py" or name.startswith(f"{path}/") for name in self._files)

    def read(self, module: str) -> ast.Module:
        path = module.replace(".", "/")
        name = next(n for n in (f"{path}.py", f"{path}/__init__.py") if n in self._files)
        with zipfile.ZipFile(self._files[name]) as archive:
            return ast.parse(archive.read(name))

    def kind(self, module: str, name: str) -> str:
        """What ``name`` is: a function, a class, a type, or something else; nothing if unknown."""
        found = ""
        for node in ast.walk(self.read(module)):
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef() if node.name == name:
                    return "function"
                case ast.ClassDef() if node.name == name:
                    bases = " ".join(ast.unparse(base) for base in node.bases)
                    return "exception" if re.search("Error|Exception", bases) else "class"
                case ast.AnnAssign(target=ast.Name(id=target), value=value) if target == name:
                    is_type = ast.unparse(node.annotation) == "TypeAlias"
                    found = "type" if is_type else self._value(module, value)
                case ast.Assign(value=value) if name in map(ast.unparse, node.targets):
                    found = self._value(module, value)
                case ast.ImportFrom(module=str(other), names=[ast.alias("*")], level=0):
                    found = found or self.kind(other, name)
                case ast.ImportFrom(names=names) if name in {n.asname or n.name for n in names}:
                    (real,) = (n.name for n in names if name in {n.asname, n.name})
                    parts = module.split(".")
                    # A package is one level deeper than a module.
                    inside = f"{module.replace('.', '/')}/__init__.py" in self._files
                    up = parts[: len(parts) - node.level + inside] if node.level else []
                    found = self.kind(".".join([*up, *filter(None, [node.module])]), real)
        return found

    def _value(self, module: str, value: ast.expr | None) -> str:
        match value:
            case ast.Name(id=other):
                return self.kind(module, other)
            case ast.BinOp(op=ast.BitOr()) | ast.Call(func=ast.Name(id="TypeVar")):
                return "type"
        return "constant"


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
    """should list the catalogue's models and answer for each, whole and streamed"""
    assert sorted(model.id for model in client.models.list()) == sorted(ALIASES)
    for alias in ALIASES:
        asked = {"model": alias, "messages": [{"role": "user", "content": "Hello"}]}
        whole = client.chat.completions.create(**asked)  # type: ignore[call-overload]
        assert whole.choices[0].message.content
        options = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = list(client.chat.completions.create(**asked, **options))  # type: ignore[call-overload]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        for usage in (whole.usage, chunks[-1].usage):
            assert usage.prompt_tokens == USAGE["inputTokens"]
            assert usage.completion_tokens == USAGE["outputTokens"]


def test_no_route_of_litellm_reveals_anything_without_the_key(
    running: Gateway, inputs: Inputs
) -> None:
    """should answer 401 to each of its hundreds of routes, always the same"""
    (wheel,) = (path for path in inputs.wheels if path.name.startswith("litellm-"))
    with zipfile.ZipFile(wheel) as archive:
        sources = [
            archive.read(name).decode()
            for name in archive.namelist()
            if name.startswith("litellm/proxy/") and name.endswith(".py")
        ]
    routes = [(m[2], m[1].upper()) for source in sources for m in ROUTE.finditer(source)]
    assert len({path for path, _ in routes}) > 700
    answers = set()
    with httpx.Client(base_url=running.url, **running.options) as nobody:
        for path, method in [*routes, ("/", "GET"), ("/ui/", "GET"), ("/nothing", "GET")]:
            answer = nobody.request(method, path)
            body = "" if method == "HEAD" else answer.text
            answers.add((answer.status_code, body, answer.headers["www-authenticate"]))
    assert {status for status, _, _ in answers} == {401}
    assert len({body for _, body, _ in answers if body}) == 1


def test_litellm_itself_refuses_other_keys(container: Container) -> None:
    """should not depend on the gate only"""
    done = container.exec_run(["python3", "-c", WITHOUT_THE_GATE])
    assert json.loads(done.output.splitlines()[-1]) == [200, 401, 401]


def test_completions_and_responses_work_too(client: OpenAI) -> None:
    """should answer completions and responses, whole and streamed, and describe one model"""
    for alias in ALIASES:
        assert client.completions.create(model=alias, prompt="Hello").choices[0].text
        assert client.responses.create(model=alias, input="Hello").output_text
        kinds = [e.type for e in client.responses.create(model=alias, input="Hello", stream=True)]
        assert kinds[-1] == "response.completed"
        assert client.models.retrieve(alias).id == alias


def test_deferred_imports_change_nothing(container: Container, inputs: Inputs) -> None:
    """should be only functions, classes and types, of modules that exist

    A constant, or an exception that is caught somewhere, would silently differ from the real one.
    Fails when LiteLLM moves or adds something: see docs/decisions/0024.
    """
    done = container.exec_run(["python3", "-c", LEFT_OUT])
    facts = json.loads(done.output.splitlines()[-1])
    sources = Sources(inputs.wheels)
    assert [module for module in facts["deferred"] if not sources.have(module)] == []
    # `serve.py` replaces nothing of this.
    logging = "litellm.litellm_core_utils.litellm_logging"
    assert sources.kind(logging, "async_success_handler") == "function"
    assert len(facts["names"]) > 20
    kinds = {f"{module}.{name}": sources.kind(module, name) for module, name in facts["names"]}
    assert {n: k for n, k in kinds.items() if k not in {"function", "class", "type"}} == {}
    # What is still imported for real: if this grows, the start takes longer.
    assert len(facts["loaded"]) <= 3, facts["loaded"]


@pytest.mark.parametrize("path", ["/", "/ui/", "/docs", "/openapi.json", "/health", "/key/list"])
def test_litellm_s_own_pages_are_not_served(running: Gateway, path: str) -> None:
    """should answer 404, also with the key"""
    with running.client() as known:
        assert known.get(path).status_code == 404


def test_a_model_outside_the_lab_is_refused(client: OpenAI) -> None:
    """should refuse in OpenAI's form, also for a Bedrock model by its own name"""
    for model in ("gpt-9", "bedrock/converse/amazon.nova-pro-v1:0"):
        with pytest.raises(BadRequestError) as caught:
            client.chat.completions.create(model=model, messages=[])
        assert isinstance(caught.value.body, dict)
        assert caught.value.body["type"] == "invalid_request_error"
        assert model in caught.value.message
    with pytest.raises(NotFoundError, match="gpt-9"):
        client.models.retrieve("gpt-9")


def test_one_callers_error_blocks_a_model_for_nobody(client: OpenAI) -> None:
    """should ask the model again at once, after an answer for which LiteLLM would pause it"""
    ask = client.chat.completions.create
    for alias in ALIASES:
        with pytest.raises(NotFoundError):
            ask(model=alias, messages=[{"role": "user", "content": f"Answer {NOT_FOUND}"}])
        answer = ask(model=alias, messages=[{"role": "user", "content": "Hello"}])
        assert answer.choices[0].message.content


@pytest.mark.parametrize("name", ["api_base", "base_url", "aws_bedrock_runtime_endpoint"])
def test_no_request_redirects_it(running: Gateway, name: str) -> None:
    """should take no address from a request: it would send its credentials there"""
    asked = {"model": ALIASES[0], "messages": [{"role": "user", "content": "Hello"}]}
    with running.client() as known:
        answer = known.post("/v1/chat/completions", json={**asked, name: "https://203.0.113.9"})
    assert answer.status_code >= 400
    assert set(answer.json()["error"]) >= {"message", "type", "param", "code"}


def test_plain_http_is_refused(running: Gateway) -> None:
    """should answer nothing that is not TLS"""
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{running.url.replace('https', 'http')}/v1/models")


def test_only_the_lab_s_name_and_authority_are_trusted(running: Gateway) -> None:
    """should fail for a client that asks for another lab, or trusts the usual authorities"""
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
    """should be healthy by ECS's own command"""
    assert container.exec_run(list(recipe.HEALTHCHECK_COMMAND)).exit_code == 0


def test_it_wrote_nothing_and_has_no_capability(container: Container) -> None:
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
