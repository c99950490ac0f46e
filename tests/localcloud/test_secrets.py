"""The gateway's keys and its private key are in the one place for them, and nowhere else.

The tests go in order: through an up, a rotation and a watch of one lab, then with its secrets
deleted under it. A test that fails says what lies where, and never shows it.
"""

from __future__ import annotations

import json
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container

from adapters.gateway.client import list_models, open_client, refuses_key
from lab import names
from lab.endpoint import Endpoint
from lab.settings import ROOT
from tests.canary import (
    Canary,
    Process,
    Watch,
    nowhere,
    own_namespace,
    private_key,
    text_secret,
)
from tests.stack import Stack
from workstation import localcloud, prefect_api
from workstation.targets import lab_home

LAB = "canary"
#: No other test brings these up together: where the registry is new, their image is built while the
#: lab gets its secrets.
MODELS = ["bedrock-llama", "bedrock-cohere"]
KEY, KEY_BEFORE, PEM = "the key", "the key before", "the private key"
EVERYTHING = {KEY, KEY_BEFORE, PEM}
#: What the local cloud's Secrets Manager keeps: the one place allowed on this machine's disk.
SECRETS = lab_home() / "localcloud" / "services" / "secretsmanager.json"
#: The same file while it is being written.
ALLOWED = (SECRETS, SECRETS.with_name(f"{SECRETS.name}.tmp"))
PAGE = 200


@dataclass
class Lived:
    """A lab that came up, got another key and was watched; and what was seen meanwhile."""

    stack: Stack
    canary: Canary
    watch: Watch
    #: What each command said in the terminal. Not for a failing test to show.
    said: dict[str, str] = field(repr=False)
    #: Before the lab had any secret, in seconds of the epoch.
    began: float

    @property
    def since(self) -> str:
        return datetime.fromtimestamp(self.began, UTC).isoformat()

    def env(self) -> tuple[int, str]:
        """Exit code and words of ``make env``, apart: a failing test shows what it compares."""
        argv = [sys.executable, "-m", "workstation", "env", "--lab", LAB]
        ended = self.stack.command(argv)
        return ended.code, ended.said

    def key(self) -> str:
        key: str = self.stack.secrets.require(names.key_secret(LAB))
        return key

    def endpoint(self) -> Endpoint:
        task = self.stack.service(LAB).running_task()
        record = self.record()
        assert task is not None
        return Endpoint.of(LAB, task.address, record["trust"]["ca"])

    def record(self) -> dict[str, Any]:
        found = self.stack.bucket.read_json(names.lab_record_key(LAB))
        assert found is not None
        return found

    def containers(self) -> list[Container]:
        name = names.resource_name(LAB)
        every = docker.from_env().containers.list(all=True)
        return [one for one in every if name in str(one.labels)]


@pytest.fixture(scope="module")
def lived(stack: Stack) -> Lived:
    """The stack with lab ``canary`` up, and with its second key."""
    stack.made.add(LAB)
    began = time.time() - 2
    argv = [sys.executable, "demo.py", "--lab", LAB, "--ttl", "45m", "--models", ",".join(MODELS)]
    with Watch() as watch:
        up = stack.command(argv)
        assert up.code == 0, up.said
        rotated = stack.run("lab-rotate-key/local", lab=LAB)
        assert rotated.code == 0, rotated.said
        watched = stack.guard("lab-watch/local")
    listed = stack.command([sys.executable, "-m", "workstation", "labs"])
    secrets, key = stack.secrets, names.key_secret(LAB)
    before, pem = secrets.read(key, "AWSPREVIOUS"), secrets.read(names.tls_secret(LAB))
    assert before
    assert pem
    canary = Canary(
        [
            text_secret(KEY, secrets.require(key)),
            text_secret(KEY_BEFORE, before),
            private_key(PEM, pem),
        ]
    )
    said = {"demo.py": up.said, "lab-rotate-key": rotated.said}
    said |= {"lab-watch": watched, "make labs": listed.said}
    return Lived(stack, canary, watch, said, began)


def test_make_env_alone_shows_the_key(lived: Lived) -> None:
    """should show the present key to who asks for it, and in no other command's words."""
    code, told = lived.env()
    assert code == 0
    shown = {found.secret for found in lived.canary.in_text("make env", told)}
    assert shown == {KEY}
    for command, said in lived.said.items():
        assert len(said) > 0, command
        nowhere(lived.canary.in_text(command, said))


def test_no_log_has_a_secret(lived: Lived) -> None:
    """should be in no event of the lab's log group, and in no container's output."""
    logs = lived.stack.session().client("logs")
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName=names.log_group(LAB))
    events = [event for page in pages for event in page["events"]]
    streams = {event["logStreamName"] for event in events}
    assert len(streams) >= 2, (
        "the task before the rotation and the one after it both said something"
    )
    nowhere(lived.canary.in_json("the log group", events))
    engine = docker.from_env()
    containers = [*lived.containers(), engine.containers.get(localcloud.CONTAINER)]
    assert len(containers) >= 2
    for container in containers:
        nowhere(lived.canary.in_bytes(f"the log of {container.name}", container.logs()))


def test_prefect_holds_no_secret(lived: Lived) -> None:
    """should be in nothing that Prefect's API tells, opened blocks included."""
    recent = {"logs": {"timestamp": {"after_": lived.since}}}
    told = {
        "logs": _pages("/logs/filter", recent),
        "artifacts": _pages("/artifacts/filter"),
        "flow runs": _pages("/flow_runs/filter"),
        "task runs": _pages("/task_runs/filter"),
        "deployments": _pages("/deployments/filter"),
        "variables": _pages("/variables/filter"),
        "blocks": _pages("/block_documents/filter", {"include_secrets": True}),
        "events": _events(lived.since),
    }
    for what, things in told.items():
        assert things, f"Prefect has no {what}: nothing was searched"
        nowhere(lived.canary.in_json(f"Prefect's {what}", things))
    assert any(LAB in json.dumps(variable) for variable in told["variables"])


def test_no_state_has_a_secret(lived: Lived) -> None:
    """should be in no version of any object of the state bucket since the lab began."""
    s3, bucket = lived.stack.session().client("s3"), lived.stack.bucket.name
    searched: dict[str, int] = {}
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for version in page.get("Versions", []):
            if version["LastModified"].timestamp() < lived.began:
                continue
            key, number = version["Key"], version["VersionId"]
            body = s3.get_object(Bucket=bucket, Key=key, VersionId=number)["Body"].read()
            searched[key] = searched.get(key, 0) + 1
            nowhere(lived.canary.in_bytes(f"{key}, version {number}", body))
    assert searched[names.lab_state_key(LAB)] >= 2, "an up and a rotation each write the state"
    assert searched[names.lab_record_key(LAB)] >= 2
    state = s3.get_object(Bucket=bucket, Key=names.lab_state_key(LAB))["Body"].read()
    assert state.count(names.tls_secret(LAB).encode()) > 0


def test_terraform_leaves_no_secret(lived: Lived) -> None:
    """should be in no file of variables while Terraform runs, and in no file that it leaves."""
    assert any(f'"{LAB}"'.encode() in content for content in lived.watch.files.values())
    for name, content in lived.watch.files.items():
        nowhere(lived.canary.in_bytes(name, content))
    for path in Path(tempfile.gettempdir()).glob("*.tfvars*"):
        nowhere(lived.canary.in_path(path))
    found, _ = lived.canary.in_folder(ROOT / "terraform", since=lived.began)
    nowhere(found)


def test_one_file_of_the_labs_home_has_the_secrets(lived: Lived) -> None:
    """should be in what the local cloud's Secrets Manager keeps, for its owner alone."""
    _wait(lambda: _held(lived.canary) == EVERYTHING, 30, "Secrets Manager's file to be written")
    assert stat.S_IMODE(SECRETS.stat().st_mode) == 0o600
    assert stat.S_IMODE(SECRETS.parent.stat().st_mode) == 0o700

    found, searched = lived.canary.in_folder(lab_home(), since=lived.began, allowed=ALLOWED)
    nowhere(found)
    seen = {str(path.relative_to(lab_home())) for path in searched}
    assert {
        f"labs/{LAB}/report.json",
        f"labs/{LAB}/sbom.cdx.json",
        "prefect/prefect.db",
        "prefect/prefect-worker.log",
        "localcloud/trail.jsonl",
        "localcloud/services/ecs.json",
        "localcloud/services/cloudwatch_logs.json",
    } <= seen
    for folder in (f"terraform/local/labs/{LAB}/", "localcloud/s3/"):
        assert any(path.startswith(folder) for path in seen), folder


def test_no_layer_of_the_image_has_a_secret(lived: Lived) -> None:
    """should be in no file, layer, configuration or manifest."""
    container = lived.containers()[0]
    image = container.image
    assert image is not None
    # What ECS hands to the container is in its own configuration, and so the search can see there.
    given = lived.canary.in_json("the container", container.attrs["Config"]["Env"])
    assert {PEM, KEY} <= {found.secret for found in given}
    nowhere(lived.canary.in_json("the image", [image.attrs, image.history()]))
    with tempfile.TemporaryFile() as saved:
        for chunk in image.save():
            saved.write(chunk)
        assert saved.tell() > 50_000_000
        saved.seek(0)
        nowhere(lived.canary.in_file("the image's layers", saved))

    pushed = lived.stack.report(LAB).image
    assert pushed is not None
    (held,) = (
        lived.stack.session()
        .client("ecr")
        .batch_get_image(
            repositoryName=names.repository_name(), imageIds=[{"imageDigest": pushed.digest}]
        )["images"]
    )
    nowhere(lived.canary.in_json("the registry's manifest", held["imageManifest"]))
    manifest = json.loads(held["imageManifest"])
    for layer in [manifest["config"], *manifest["layers"]]:
        path = lab_home() / "localcloud" / "layers" / layer["digest"].replace(":", "-")
        nowhere(lived.canary.in_path(path))


def test_no_process_shows_a_secret(lived: Lived) -> None:
    """should be in no argument; in the environment of Terraform and of the gateway alone."""
    processes = lived.watch.processes
    assert any(_is_terraform(p) and b"\0apply\0" in p.arguments for p in processes)
    assert any(b"prefect" in p.arguments for p in processes)
    holders: dict[str, set[str]] = {}
    for process in processes:
        place = f"the arguments of {process}"
        nowhere(lived.canary.in_bytes(place, process.arguments))
        found = lived.canary.in_bytes("its environment", process.environment)
        if found:
            who = _allowed_holder(process) or str(process)
            holders.setdefault(who, set()).update(one.secret for one in found)
    assert holders == {"Terraform": {PEM}, "the gateway": EVERYTHING}


def test_a_deleted_key_is_told_by_whoever_needs_it(lived: Lived) -> None:
    """should say what is gone and what mends it; the task that runs serves on."""
    key, task, version = lived.key(), lived.stack.task_arn(LAB), lived.record()["key_version"]
    secrets = lived.stack.session().client("secretsmanager")
    secrets.delete_secret(SecretId=names.key_secret(LAB), ForceDeleteWithoutRecovery=True)

    with open_client(lived.endpoint(), key) as client:
        assert sorted(list_models(client)) == sorted(MODELS)
    code, said = lived.env()
    assert code == 2
    _says(said, "is gone", "lab-up")
    lived.stack.guard("lab-watch/local")
    assert _seen()["ready"] is False
    assert lived.stack.run("lab-rotate-key/local", lab=LAB).code != 0
    _says(_last_message("lab-rotate-key"), "is gone", "lab-up")
    assert lived.record()["key_version"] == version
    assert lived.stack.task_arn(LAB) == task


def test_an_up_makes_another_key_for_one_that_was_deleted(lived: Lived) -> None:
    """should roll a task out that has the new key and refuses the one that was deleted."""
    task = lived.stack.task_arn(LAB)
    ended = lived.stack.up(LAB, ttl="45m", models=MODELS)
    assert ended.code == 0, ended.said
    assert lived.stack.task_arn(LAB) != task
    with open_client(lived.endpoint(), lived.key()) as client:
        assert sorted(list_models(client)) == sorted(MODELS)
    code, _ = lived.env()
    assert code == 0


def test_secrets_that_wait_for_their_deletion_are_told_and_taken_back(lived: Lived) -> None:
    """should name the secret that cannot be read; an up restores both and replaces nothing."""
    key, task = lived.key(), lived.stack.task_arn(LAB)
    secrets = lived.stack.session().client("secretsmanager")
    for secret in (names.key_secret(LAB), names.tls_secret(LAB)):
        secrets.delete_secret(SecretId=secret)
    code, said = lived.env()
    assert code == 2
    _says(said, names.key_secret(LAB), "waits for its deletion", "lab-up")
    assert lived.stack.run("lab-rotate-key/local", lab=LAB).code != 0
    _says(_last_message("lab-rotate-key"), "waits for its deletion", "lab-up")

    ended = lived.stack.up(LAB, ttl="45m", models=MODELS)
    assert ended.code == 0, ended.said
    is_the_same = lived.key() == key
    assert is_the_same
    assert lived.stack.task_arn(LAB) == task


def test_a_deleted_certificate_is_made_anew(lived: Lived) -> None:
    """should roll out another certificate, which callers can know; the key stays."""
    key, before = lived.key(), lived.endpoint()
    secrets = lived.stack.session().client("secretsmanager")
    secrets.delete_secret(SecretId=names.tls_secret(LAB), ForceDeleteWithoutRecovery=True)
    with open_client(before, key) as client:
        assert sorted(list_models(client)) == sorted(MODELS)
    ended = lived.stack.up(LAB, ttl="45m", models=MODELS)
    assert ended.code == 0, ended.said
    after = lived.endpoint()
    assert after.ca != before.ca
    is_the_same = lived.key() == key
    assert is_the_same
    with open_client(after, key) as client:
        assert not refuses_key(client)


def test_the_secrets_go_with_the_lab(lived: Lived) -> None:
    """should be in no place at all once the lab is down."""
    last = Canary([text_secret(KEY, lived.key())])
    ended = lived.stack.down(LAB)
    assert ended.code == 0, ended.said
    assert lived.containers() == []
    _wait(lambda: _held(lived.canary) | _held(last) == set(), 30, "Secrets Manager to forget")
    for canary in (lived.canary, last):
        found, searched = canary.in_folder(lab_home(), since=lived.began, allowed=ALLOWED)
        assert searched
        nowhere(found)


def _allowed_holder(process: Process) -> str | None:
    """Whose environment may have secrets, if ``process`` is one of these."""
    if process.namespace == own_namespace():
        return "Terraform" if _is_terraform(process) else None
    # Only ECS sets this, from the lab's task definition.
    return "the gateway" if process.assigns("GATEWAY_TLS_NAME") else None


def _is_terraform(process: Process) -> bool:
    """Also its provider, and the wrappers that become Terraform."""
    argv = process.arguments.split(b"\0")
    if Path(argv[0].decode(errors="replace")).name.startswith("terraform"):
        return True
    return process.name in {"env", "setpriv"} and b"terraform" in argv


def _held(canary: Canary) -> set[str]:
    """What of the secrets is in the one place allowed."""
    return {found.secret for found in canary.in_path(SECRETS)}


def _pages(path: str, body: dict[str, Any] | None = None) -> list[Any]:
    found: list[Any] = []
    with prefect_api.Api() as api:
        while page := api._ask("POST", path, {**(body or {}), "limit": PAGE, "offset": len(found)}):
            found += page
    return found


def _events(since: str) -> list[Any]:
    until = datetime.now(UTC).isoformat()
    wanted = {"filter": {"occurred": {"since": since, "until": until}}}
    with prefect_api.Api() as api:
        page = api._ask("POST", "/events/filter", wanted)
        found = list(page["events"])
        while page["next_page"]:
            page = api._ask("GET", page["next_page"])
            found += page["events"]
    return found


def _seen() -> dict[str, Any]:
    with prefect_api.Api() as api:
        found = api._ask("GET", f"/variables/name/{names.variable(LAB, 'seen')}")
    return dict(found["value"])


def _last_message(flow: str) -> str:
    body = {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_DESC", "limit": 1}
    with prefect_api.Api() as api:
        (run,) = api._ask("POST", "/flow_runs/filter", body)
    return str(run["state"]["message"])


def _says(said: str, *words: str) -> None:
    # Only the words are compared: where a refusal is missing, there may be a key.
    missing = [word for word in words if word not in said]
    assert missing == []
    assert said.count("Traceback") == 0


def _wait(check: Callable[[], object], deadline: float, what: str) -> None:
    end = time.monotonic() + deadline
    while not check():
        assert time.monotonic() < end, f"{what} took more than {deadline} s"
        time.sleep(0.5)
