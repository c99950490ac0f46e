"""The gateway's keys and its private key are in the one place for them, and nowhere else.

The tests go in order: after an up, a rotation and a watch of the lab, then with its secrets deleted
under it. A test that fails says what is stored where, and never shows it. That the secrets go with
the lab is tested in ``tests/ends/test_down.py``.
"""

from __future__ import annotations

import json
import stat
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker

from adapters.gateway.client import list_models, open_client, refuses_key
from lab import names
from lab.settings import ROOT
from tests.canary import Canary, Process, nowhere, own_namespace
from tests.lived import ALLOWED, KEY, KEY_BEFORE, PEM, SECRETS, Lived
from tests.observe import containers, last_message, variable, wait_until
from tests.shared_lab import LAB
from workstation import localcloud, prefect_api
from workstation.targets import state_home

EVERYTHING = {KEY, KEY_BEFORE, PEM}
PAGE = 200


def test_make_env_alone_shows_the_key(lived: Lived) -> None:
    """should show the present key when it is asked for, and in no other command's words."""
    code, said = lived.env()
    assert code == 0
    shown = {found.secret for found in lived.canary.in_text("make env", said)}
    assert shown == {KEY}
    for command, words in lived.said.items():
        assert len(words) > 0, command
        nowhere(lived.canary.in_text(command, words))


def test_no_log_has_a_secret(lived: Lived) -> None:
    """should be in no event of the lab's log group, and in no container's output."""
    logs = lived.lab.stack.session().client("logs")
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName=names.log_group(LAB))
    events = [event for page in pages for event in page["events"]]
    streams = {event["logStreamName"] for event in events}
    assert len(streams) >= 2, (
        "the task before the rotation and the one after it both said something"
    )
    nowhere(lived.canary.in_json("the log group", events))
    engine = docker.from_env()
    searched = [*containers(LAB), engine.containers.get(localcloud.CONTAINER)]
    assert len(searched) >= 2
    for container in searched:
        nowhere(lived.canary.in_bytes(f"the log of {container.name}", container.logs()))


def test_prefect_holds_no_secret(lived: Lived) -> None:
    """should be in no answer of Prefect's API, opened blocks included."""
    recent = {"logs": {"timestamp": {"after_": lived.since}}}
    answers = {
        "logs": _pages("/logs/filter", recent),
        "artifacts": _pages("/artifacts/filter"),
        "flow runs": _pages("/flow_runs/filter"),
        "task runs": _pages("/task_runs/filter"),
        "deployments": _pages("/deployments/filter"),
        "variables": _pages("/variables/filter"),
        "blocks": _pages("/block_documents/filter", {"include_secrets": True}),
        "events": _events(lived.since),
    }
    for what, things in answers.items():
        assert things, f"Prefect has no {what}: nothing was searched"
        nowhere(lived.canary.in_json(f"Prefect's {what}", things))
    assert any(LAB in json.dumps(variable) for variable in answers["variables"])


def test_no_state_has_a_secret(lived: Lived) -> None:
    """should be in no version of any object of the state bucket since the lab began."""
    s3, bucket = lived.lab.stack.session().client("s3"), lived.lab.stack.bucket.name
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
    assert any(f'"{LAB}"'.encode() in content for content in lived.variables.values())
    for name, content in lived.variables.items():
        nowhere(lived.canary.in_bytes(name, content))
    for path in Path(tempfile.gettempdir()).glob("*.tfvars*"):
        nowhere(lived.canary.in_path(path))
    found, _ = lived.canary.in_folder(ROOT / "terraform", since=lived.began)
    nowhere(found)


def test_one_file_of_the_labs_home_has_the_secrets(lived: Lived) -> None:
    """should be in what the local cloud's Secrets Manager keeps, for its owner alone."""
    wait_until(
        lambda: _held(lived.canary) == EVERYTHING, 30, "Secrets Manager's file to be written"
    )
    assert stat.S_IMODE(SECRETS.stat().st_mode) == 0o600
    assert stat.S_IMODE(SECRETS.parent.stat().st_mode) == 0o700

    found, searched = lived.canary.in_folder(state_home(), since=lived.began, allowed=ALLOWED)
    nowhere(found)
    seen = {str(path.relative_to(state_home())) for path in searched}
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
    container = containers(LAB)[0]
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

    pushed = lived.lab.report().image
    assert pushed is not None
    (held,) = (
        lived.lab.stack.session()
        .client("ecr")
        .batch_get_image(
            repositoryName=names.repository_name(), imageIds=[{"imageDigest": pushed.digest}]
        )["images"]
    )
    nowhere(lived.canary.in_json("the registry's manifest", held["imageManifest"]))
    manifest = json.loads(held["imageManifest"])
    for layer in [manifest["config"], *manifest["layers"]]:
        path = state_home() / "localcloud" / "layers" / layer["digest"].replace(":", "-")
        nowhere(lived.canary.in_path(path))


def test_no_process_shows_a_secret(lived: Lived) -> None:
    """should be in no argument; in the environment of Terraform and of the gateway alone."""
    processes = lived.processes
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


def test_a_deleted_key_is_named_by_each_command_that_needs_it(lived: Lived) -> None:
    """should say what is gone and what mends it; the task that runs serves on."""
    key, task, version = lived.lab.key(), lived.lab.task().arn, lived.lab.record()["key_version"]
    secrets = lived.lab.stack.session().client("secretsmanager")
    secrets.delete_secret(SecretId=names.key_secret(LAB), ForceDeleteWithoutRecovery=True)

    with open_client(lived.lab.endpoint(), key) as client:
        assert sorted(list_models(client)) == sorted(lived.lab.models)
    code, said = lived.env()
    assert code == 2
    _says(said, "is gone", "lab-up")
    lived.lab.stack.guard("lab-watch/local")
    assert variable(names.variable(LAB, "seen"))["ready"] is False
    assert lived.lab.run("lab-rotate-key").code != 0
    _says(last_message("lab-rotate-key"), "is gone", "lab-up")
    assert lived.lab.record()["key_version"] == version
    assert lived.lab.task().arn == task


def test_an_up_makes_another_key_for_one_that_was_deleted(lived: Lived) -> None:
    """should roll a task out that has the new key and refuses the one that was deleted."""
    task = lived.lab.task().arn
    ended = lived.lab.up(lived.lab.models)
    assert ended.code == 0, ended.said
    assert lived.lab.task().arn != task
    with open_client(lived.lab.endpoint(), lived.lab.key()) as client:
        assert sorted(list_models(client)) == sorted(lived.lab.models)
    code, _ = lived.env()
    assert code == 0


def test_secrets_that_wait_for_their_deletion_are_named_and_restored(lived: Lived) -> None:
    """should name the secret that cannot be read; an up restores both and replaces nothing."""
    key, task = lived.lab.key(), lived.lab.task().arn
    secrets = lived.lab.stack.session().client("secretsmanager")
    for secret in (names.key_secret(LAB), names.tls_secret(LAB)):
        secrets.delete_secret(SecretId=secret)
    code, said = lived.env()
    assert code == 2
    _says(said, names.key_secret(LAB), "waits for its deletion", "lab-up")
    assert lived.lab.run("lab-rotate-key").code != 0
    _says(last_message("lab-rotate-key"), "waits for its deletion", "lab-up")

    ended = lived.lab.up(lived.lab.models)
    assert ended.code == 0, ended.said
    is_the_same = lived.lab.key() == key
    assert is_the_same
    assert lived.lab.task().arn == task


def test_a_deleted_certificate_is_replaced(lived: Lived) -> None:
    """should roll out another certificate, which callers can know; the key stays."""
    key, before = lived.lab.key(), lived.lab.endpoint()
    secrets = lived.lab.stack.session().client("secretsmanager")
    secrets.delete_secret(SecretId=names.tls_secret(LAB), ForceDeleteWithoutRecovery=True)
    with open_client(before, key) as client:
        assert sorted(list_models(client)) == sorted(lived.lab.models)
    ended = lived.lab.up(lived.lab.models)
    assert ended.code == 0, ended.said
    after = lived.lab.endpoint()
    assert after.ca != before.ca
    is_the_same = lived.lab.key() == key
    assert is_the_same
    with open_client(after, key) as client:
        assert not refuses_key(client)


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


def _says(said: str, *words: str) -> None:
    # Only the words are compared: where a refusal is missing, there may be a key.
    missing = [word for word in words if word not in said]
    assert missing == []
    assert said.count("Traceback") == 0
