"""A lab that is up: its models answer, and everything that belongs to it is there."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx
import pytest

from adapters.gateway.client import pinned
from lab import names
from lab.endpoint import call_with_curl, call_with_python
from lab.image import recipe
from lab.models.lifecycle import ModelAction
from lab.report.model import Verdict
from tests.observe import artifact, containers, scheduled_ends
from tests.shared_lab import LAB, SEED, SharedLab


def test_every_model_answers_chat_and_stream(live: SharedLab) -> None:
    """should report all four seed models ok, with times and tokens."""
    report = live.report()
    assert [m.alias for m in report.models] == SEED
    for model in report.models:
        assert model.verdict is Verdict.OK
        assert model.streamed
        assert model.first_token_ms is not None
        assert model.total_ms is not None
        assert model.first_token_ms <= model.total_ms
        assert model.prompt_tokens
        assert model.completion_tokens
    assert report.endpoint
    assert "@sha256:" in str(report.image or "")
    assert [s.name for s in report.stages if s.failed] == []


def test_the_local_cloud_serves_the_seeds_own_models(live: SharedLab) -> None:
    """should substitute and skip nothing, though it does not list every one of them."""
    report = live.report()
    assert [m.model_id for m in report.models] == [
        "meta.llama3-8b-instruct-v1:0",
        "amazon.titan-text-express-v1",
        "amazon.titan-text-lite-v1",
        "cohere.command-r-v1:0",
    ]
    assert {note.action for note in report.model_notes} <= {ModelAction.SUBSCRIBED}


def test_the_gateway_has_its_own_role_and_no_more(live: SharedLab) -> None:
    """should have asked the models as the lab's task role, and only for what it may."""
    role = f":assumed-role/{names.resource_name(LAB)}-task/"
    asked = [e for e in live.stack.trail() if role in e["principal"]]
    assert {e["action"] for e in asked} == {
        "bedrock:InvokeModel",
        "bedrock:InvokeModelWithResponseStream",
    }
    assert [e for e in asked if e["decision"] == "denied"] == []


def test_an_application_calls_the_lab_with_what_make_env_prints(live: SharedLab) -> None:
    """should be enough for the lines that README and Prefect's UI show."""
    environment = f'eval "$(LAB={LAB} make -s env)" && export PATH="$1:$PATH" && '
    curl = f"{environment} {call_with_curl('bedrock-titan')}"
    python = f"{environment} python - <<'PYTHON'\n{call_with_python('bedrock-titan')}PYTHON\n"
    tools = str(Path(sys.executable).parent)
    asked = live.stack.command(["bash", "-euc", curl, "bash", tools])
    assert asked.code == 0, asked.said
    assert '"content"' in asked.said
    asked = live.stack.command(["bash", "-euc", python, "bash", tools])
    assert asked.code == 0, asked.said
    assert asked.said.strip()


def test_without_the_key_every_route_answers_401(live: SharedLab) -> None:
    """should refuse in OpenAI's form, whatever was asked for, also what is not there."""
    for key in (None, "sk-another"):
        for path in ("/v1/models", "/health/readiness", "/", "/ui", "/docs", "/key/generate"):
            answer = _get(live, path, key)
            assert answer.status_code == 401, path
            assert answer.json()["error"]["code"] == "invalid_api_key"
    key = live.key()
    assert _get(live, "/v1/models", key).status_code == 200
    assert {_get(live, path, key).status_code for path in ("/", "/ui", "/docs")} == {404}


def test_plain_http_is_refused(live: SharedLab) -> None:
    """should answer nothing that is not TLS, and TLS only for who pins the lab's authority."""
    url = live.endpoint().url
    with pytest.raises(httpx.TransportError):
        httpx.get(url.replace("https:", "http:"), timeout=5)
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(url, timeout=5)


def test_the_container_is_held_to_its_bounds(live: SharedLab) -> None:
    """should run as nobody, with nothing to write to, no capability, and the task's size."""
    (container,) = containers(LAB)
    host = container.attrs["HostConfig"]
    assert container.attrs["Config"]["User"] == f"{recipe.GATEWAY_USER}:{recipe.GATEWAY_USER}"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["Privileged"]
    assert (host["NanoCpus"], host["Memory"]) == (1_000_000_000, 2048 * 1024 * 1024)
    shell = container.exec_run(["/bin/sh", "-c", "true"])
    assert shell.exit_code != 0


def test_the_end_is_scheduled_and_recorded(live: SharedLab) -> None:
    """should have one lab-down run at the end, and a record of the end in the cloud."""
    report = live.report()
    record = live.record()
    assert record["expires_at"] == report.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    ends = scheduled_ends(LAB)
    assert [end["expected_start_time"][:19] for end in ends] == [record["expires_at"][:19]]


def test_the_key_is_in_no_state(live: SharedLab) -> None:
    """should keep the gateway's key out of every object of the state bucket."""
    key = live.key().encode()
    s3, bucket = live.stack.session().client("s3"), live.stack.bucket.name
    objects = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert any(o["Key"] == names.lab_state_key(LAB) for o in objects)
    for found in objects:
        assert key not in s3.get_object(Bucket=bucket, Key=found["Key"])["Body"].read()


def test_everything_carries_the_labs_tag(live: SharedLab) -> None:
    """should find the VPC and the cluster by the lab's tag."""
    tagged = [{"Name": f"tag:{names.TAG_LAB}", "Values": [LAB]}]
    assert len(live.stack.session().client("ec2").describe_vpcs(Filters=tagged)["Vpcs"]) == 1
    cluster = (
        live.stack.session()
        .client("ecs")
        .describe_clusters(clusters=[names.resource_name(LAB)], include=["TAGS"])["clusters"][0]
    )
    tags = {tag["key"]: tag["value"] for tag in cluster["tags"]}
    assert tags[names.TAG_LAB] == LAB
    assert names.TAG_EXPIRES_AT in tags


def test_artifacts_describe_the_lab(live: SharedLab) -> None:
    """should publish endpoint, models, stages and progress under keys of the lab."""
    for what in ("endpoint", "models", "posture", "stages", "progress"):
        assert artifact(names.artifact_key(LAB, what)), what
    endpoint = live.report().endpoint
    assert endpoint
    assert endpoint in artifact(names.artifact_key(LAB, "endpoint"))
    assert float(artifact(names.artifact_key(LAB, "progress"))) == 100.0


def _get(live: SharedLab, path: str, key: str | None) -> httpx.Response:
    endpoint = live.endpoint()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(timeout=10, headers=headers, **pinned(endpoint)) as client:
        return client.get(f"{endpoint.url}{path}")
