"""A lab's whole life on the local cloud, commanded as a user does. The tests go in order."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from docker.models.containers import Container
from openai import APIConnectionError, APIStatusError

from adapters.aws.sweep import Sweeper
from adapters.gateway.client import open_client, pinned
from lab import names
from lab.endpoint import Endpoint, call_with_curl, call_with_python
from lab.image import recipe
from lab.models.lifecycle import ModelAction
from lab.posture import CheckName
from lab.record import LabRecord
from lab.report.model import Verdict
from lab.settings import ROOT
from tests.stack import Ended, Stack
from workstation import prefect_api
from workstation.targets import lab_home, target_environment

LAB = "life"
SEED = ["bedrock-llama", "bedrock-titan", "bedrock-titan-lite", "bedrock-cohere"]


@pytest.fixture(scope="module")
def live(stack: Stack) -> Stack:
    """The stack with lab ``life`` up."""
    ended = stack.up(LAB)
    assert ended.code == 0, ended.said
    return stack


def test_every_model_answers_chat_and_stream(live: Stack) -> None:
    """should report all four seed models ok, with times and tokens."""
    report = live.report(LAB)
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


def test_the_local_cloud_serves_the_seeds_own_models(live: Stack) -> None:
    """should substitute and skip nothing, though it does not list every one of them."""
    report = live.report(LAB)
    assert [m.model_id for m in report.models] == [
        "meta.llama3-8b-instruct-v1:0",
        "amazon.titan-text-express-v1",
        "amazon.titan-text-lite-v1",
        "cohere.command-r-v1:0",
    ]
    assert {note.action for note in report.model_notes} <= {ModelAction.SUBSCRIBED}


def test_the_gateway_has_its_own_role_and_no_more(live: Stack) -> None:
    """should have asked the models as the lab's task role, and only for what it may."""
    role = f":assumed-role/{names.resource_name(LAB)}-task/"
    asked = [e for e in live.trail() if role in e["principal"]]
    assert {e["action"] for e in asked} == {
        "bedrock:InvokeModel",
        "bedrock:InvokeModelWithResponseStream",
    }
    assert [e for e in asked if e["decision"] == "denied"] == []


def test_an_application_calls_the_lab_with_what_make_env_prints(live: Stack) -> None:
    """should be enough for the lines that README and Prefect's UI show."""
    environment = f'eval "$(LAB={LAB} make -s env)" && export PATH="$1:$PATH" && '
    curl = f"{environment} {call_with_curl('bedrock-titan')}"
    python = f"{environment} python - <<'PYTHON'\n{call_with_python('bedrock-titan')}PYTHON\n"
    tools = str(Path(sys.executable).parent)
    asked = live.command(["bash", "-euc", curl, "bash", tools])
    assert asked.code == 0, asked.said
    assert '"content"' in asked.said
    asked = live.command(["bash", "-euc", python, "bash", tools])
    assert asked.code == 0, asked.said
    assert asked.said.strip()


def test_without_the_key_every_route_answers_401(live: Stack) -> None:
    """should refuse in OpenAI's form, whatever was asked for, also what is not there."""
    for key in (None, "sk-another"):
        for path in ("/v1/models", "/health/readiness", "/", "/ui", "/docs", "/key/generate"):
            answer = _get(live, path, key)
            assert answer.status_code == 401, path
            assert answer.json()["error"]["code"] == "invalid_api_key"
    key = live.secrets.require(names.key_secret(LAB))
    assert _get(live, "/v1/models", key).status_code == 200
    assert {_get(live, path, key).status_code for path in ("/", "/ui", "/docs")} == {404}


def test_plain_http_is_refused(live: Stack) -> None:
    """should answer nothing that is not TLS, and TLS only for who pins the lab's authority."""
    url = _endpoint(live).url
    with pytest.raises(httpx.TransportError):
        httpx.get(url.replace("https:", "http:"), timeout=5)
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(url, timeout=5)


def test_the_container_is_held_to_its_bounds(live: Stack) -> None:
    """should run as nobody, with nothing to write to, no capability, and the task's size."""
    (container,) = _containers(LAB)
    host = container.attrs["HostConfig"]
    assert container.attrs["Config"]["User"] == f"{recipe.GATEWAY_USER}:{recipe.GATEWAY_USER}"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["Privileged"]
    assert (host["NanoCpus"], host["Memory"]) == (1_000_000_000, 2048 * 1024 * 1024)
    shell = container.exec_run(["/bin/sh", "-c", "true"])
    assert shell.exit_code != 0


def test_the_end_is_scheduled_and_recorded(live: Stack) -> None:
    """should have one lab-down run at the end, and a record of the end in the cloud."""
    report = live.report(LAB)
    record = live.bucket.read_json(names.lab_record_key(LAB))
    assert record is not None
    assert record["expires_at"] == report.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    ends = _scheduled_ends(LAB)
    assert [end["expected_start_time"][:19] for end in ends] == [record["expires_at"][:19]]


def test_the_key_is_in_no_state(live: Stack) -> None:
    """should keep the gateway's key out of every object of the state bucket."""
    key = live.secrets.require(names.key_secret(LAB)).encode()
    s3 = live.session().client("s3")
    objects = s3.list_objects_v2(Bucket=live.bucket.name)["Contents"]
    assert any(o["Key"] == names.lab_state_key(LAB) for o in objects)
    for found in objects:
        assert key not in s3.get_object(Bucket=live.bucket.name, Key=found["Key"])["Body"].read()


def test_everything_carries_the_labs_tag(live: Stack) -> None:
    """should find the VPC and the cluster by the lab's tag."""
    tagged = [{"Name": f"tag:{names.TAG_LAB}", "Values": [LAB]}]
    assert len(live.session().client("ec2").describe_vpcs(Filters=tagged)["Vpcs"]) == 1
    cluster = (
        live.session()
        .client("ecs")
        .describe_clusters(clusters=[names.resource_name(LAB)], include=["TAGS"])["clusters"][0]
    )
    tags = {tag["key"]: tag["value"] for tag in cluster["tags"]}
    assert tags[names.TAG_LAB] == LAB
    assert names.TAG_EXPIRES_AT in tags


def test_artifacts_tell_of_the_lab(live: Stack) -> None:
    """should publish endpoint, models, stages and progress under keys of the lab."""
    for what in ("endpoint", "models", "posture", "stages", "progress"):
        artifact = _artifact(names.artifact_key(LAB, what))
        assert artifact is not None, what
    endpoint = _artifact(names.artifact_key(LAB, "endpoint"))
    assert live.report(LAB).endpoint in endpoint["data"]
    assert _artifact(names.artifact_key(LAB, "progress"))["data"] == 100.0


def test_every_check_of_the_posture_passes(live: Stack) -> None:
    """should have looked at the live lab at the end of the up, and again when asked to."""
    posture = live.report(LAB).posture
    assert posture is not None
    assert [check.name for check in posture.checks] == list(CheckName)
    assert posture.misses == ""
    assert posture.summary in _artifact(names.artifact_key(LAB, "posture"))["data"]
    ended = _change(live, "lab-verify")
    assert ended.code == 0, ended.said
    assert _misses() == []


def test_what_was_broken_by_hand_is_named(live: Stack) -> None:
    """should fail with the name of each thing at once, and put nothing right by itself."""
    session, name, log = live.session(), names.resource_name(LAB), names.log_group(LAB)
    ec2, iam, logs = (session.client(service) for service in ("ec2", "iam", "logs"))
    wanted = [{"Name": "group-name", "Values": [name]}]
    (group,) = ec2.describe_security_groups(Filters=wanted)["SecurityGroups"]
    port = names.GATEWAY_PORT
    everyone = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port}
    opened: Any = {
        "GroupId": group["GroupId"],
        "IpPermissions": [{**everyone, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}],
    }
    allow = {"Effect": "Allow", "Action": "bedrock:InvokeModel", "Resource": "*"}
    policy = {"RoleName": f"{name}-task", "PolicyName": "by-hand"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    (before,) = logs.describe_log_groups(logGroupNamePrefix=log)["logGroups"]
    with contextlib.ExitStack() as undo:
        ec2.authorize_security_group_ingress(**opened)
        undo.callback(ec2.revoke_security_group_ingress, **opened)
        iam.put_role_policy(**policy, PolicyDocument=document)
        undo.callback(iam.delete_role_policy, **policy)
        logs.delete_retention_policy(logGroupName=log)
        undo.callback(
            logs.put_retention_policy,
            logGroupName=log,
            retentionInDays=before["retentionInDays"],
        )
        assert _change(live, "lab-verify").code != 0
        missed = _misses()
    assert missed == [
        CheckName.FIREWALL,
        CheckName.IAM_MODELS,
        CheckName.ROLE,
        CheckName.RETENTION,
    ]
    ended = _change(live, "lab-verify")
    assert ended.code == 0, ended.said


def test_iam_is_asked_within_the_roles_boundary(live: Stack) -> None:
    """should not call allowed what a role's policy allows and its boundary does not."""
    iam, role = live.session().client("iam"), f"{names.resource_name(LAB)}-task"
    policy = {"RoleName": role, "PolicyName": "by-hand"}
    allow = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    iam.put_role_policy(**policy, PolicyDocument=document)
    try:
        (result,) = iam.simulate_principal_policy(
            PolicySourceArn=f"arn:aws:iam::000000000000:role/{role}",
            ActionNames=["s3:GetObject"],
            ResourceArns=["arn:aws:s3:::somebody-elses/object"],
        )["EvaluationResults"]
    finally:
        iam.delete_role_policy(**policy)
    assert result["EvalDecision"] == "implicitDeny"


def test_a_second_up_builds_and_replaces_nothing(live: Stack) -> None:
    """should converge: nothing built, the same task serving, one end."""
    before = live.task_arn(LAB)
    ended = live.up(LAB)
    assert ended.code == 0, ended.said
    report = live.report(LAB)
    assert not report.image_built
    assert live.task_arn(LAB) == before
    assert len(_scheduled_ends(LAB)) == 1


def test_a_broken_image_is_told_and_the_old_version_still_serves(live: Stack) -> None:
    """should fail at the rollout with the container's words, and leave the old task serving."""
    before = live.task_arn(LAB)
    tag = live.push_broken_image(["bedrock-titan-lite"])
    try:
        ended = live.up(LAB, models=["bedrock-titan-lite"])
    finally:
        live.session().client("ecr").batch_delete_image(
            repositoryName=names.repository_name(), imageIds=[{"imageTag": tag}]
        )
    assert ended.code != 0
    error = live.report(LAB).error or ""
    assert error.startswith("at rollout:")
    assert "exited with 7" in error
    assert "no gateway in this image" in error
    assert live.task_arn(LAB) == before
    assert _answers(live)


def test_after_a_failed_up_the_lab_can_be_brought_up_again(live: Stack) -> None:
    """should build the image anew, though the engine has pulled the broken one under its tag."""
    ended = live.up(LAB, models=["bedrock-titan-lite"])
    assert ended.code == 0, ended.said
    assert live.report(LAB).image_built


def test_a_model_that_fails_is_a_verdict(live: Stack) -> None:
    """should refuse an unknown alias before anything is touched, naming those that are known."""
    ended = live.up(LAB, models=["bedrock-nothing"])
    assert ended.code != 0
    assert "bedrock-nova-micro" in (live.report(LAB).error or "")
    assert _answers(live)


def test_a_host_is_let_in_and_shut_out_without_another_task(live: Stack) -> None:
    """should change the firewall and the record alone, as often as it is asked for."""
    task, own = live.task_arn(LAB), live.service(LAB).allowed_cidrs()
    for _ in range(2):
        ended = _change(live, "lab-allow", add=["8.8.4.4"])
        assert ended.code == 0, ended.said
        assert live.service(LAB).allowed_cidrs() == _recorded(live)["cidrs"] == [*own, "8.8.4.4/32"]
    ended = _change(live, "lab-allow", remove=["8.8.4.4"])
    assert ended.code == 0, ended.said
    assert live.service(LAB).allowed_cidrs() == _recorded(live)["cidrs"] == own
    nobody = _change(live, "lab-allow", remove=own)
    assert nobody.code != 0
    assert live.service(LAB).allowed_cidrs() == _recorded(live)["cidrs"] == own
    assert live.task_arn(LAB) == task


def test_the_firewall_follows_the_deployer_where_that_is_wished(live: Stack) -> None:
    """should move the deployer's own rule, tell of it, and leave the hosts that somebody gave."""
    task, (own,) = live.task_arn(LAB), live.service(LAB).allowed_cidrs()
    assert _change(live, "lab-allow", add=["8.8.4.4"]).code == 0
    _watch_from(live, "198.51.100.7", follow=False)
    assert live.service(LAB).allowed_cidrs() == sorted([own, "8.8.4.4/32"])
    _watch_from(live, "198.51.100.7", follow=True)
    assert live.service(LAB).allowed_cidrs() == ["198.51.100.7/32", "8.8.4.4/32"]
    assert _recorded(live)["deployer"] == "198.51.100.7/32"
    # The scheduled watch, which does not follow, may have published meanwhile.
    told = _artifacts(names.artifact_key(LAB, "endpoint"))
    assert any(f"at {own} before" in artifact["data"] for artifact in told)
    _watch_from(live, own.removesuffix("/32"), follow=True)
    assert _change(live, "lab-allow", remove=["8.8.4.4"]).code == 0
    assert live.service(LAB).allowed_cidrs() == [own]
    assert live.task_arn(LAB) == task


def test_another_key_replaces_the_old_one_under_a_lab_that_answers(live: Stack) -> None:
    """should serve with the old key until the new task runs, then refuse it, and tell neither."""
    secret, name = names.key_secret(LAB), names.resource_name(LAB)
    old, before = live.secrets.require(secret), live.service(LAB).running_task()
    assert before is not None
    serving = _endpoint(live)
    answers: list[tuple[float, int]] = []
    done = threading.Event()

    def ask() -> None:
        while not done.wait(0.2):
            at = time.time()
            answers.append((at, _status(serving, old)))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        ended = _change(live, "lab-rotate-key")
    finally:
        done.set()
        asking.join()
    assert ended.code == 0, ended.said

    new, after = live.secrets.require(secret), live.service(LAB).running_task()
    assert after is not None
    assert (new, after.arn) != (old, before.arn)
    assert _status(_endpoint(live), new) == 200
    assert _status(_endpoint(live), old) == 401
    # The local cloud takes a container that runs for one that is ready; AWS asks it.
    ran = live.session().client("ecs").describe_tasks(cluster=name, tasks=[after.arn])
    until = ran["tasks"][0]["startedAt"].timestamp()
    assert {status for at, status in answers if at < until} == {200}

    history = [lab_home() / "prefect" / f"prefect.db{part}" for part in ("", "-wal")]
    told = b"".join(path.read_bytes() for path in history if path.exists()) + ended.said.encode()
    s3 = live.session().client("s3")
    for found in s3.list_objects_v2(Bucket=live.bucket.name)["Contents"]:
        told += s3.get_object(Bucket=live.bucket.name, Key=found["Key"])["Body"].read()
    assert told
    assert old.encode() not in told
    assert new.encode() not in told


def test_a_later_up_keeps_the_key_and_the_task(live: Stack) -> None:
    """should pass the number of the key on to Terraform, and replace nothing."""
    key, task = live.secrets.require(names.key_secret(LAB)), live.task_arn(LAB)
    version = _recorded(live)["key_version"]
    assert version > 1
    ended = live.up(LAB, models=["bedrock-titan-lite"])
    assert ended.code == 0, ended.said
    assert live.secrets.require(names.key_secret(LAB)) == key
    assert live.task_arn(LAB) == task
    assert _recorded(live)["key_version"] == version


def test_an_interrupted_up_is_cancelled_and_can_be_run_again(stack: Stack) -> None:
    """should end Terraform gracefully on Ctrl-C, keep no lock, and converge on the next up."""
    lab = "halfway"
    stack.made.add(lab)
    demo = subprocess.Popen(
        # A terminal's command hears Ctrl-C, though the tests themselves may run in the background.
        ["env", "--default-signal=INT", sys.executable, "demo.py", "--lab", lab, "--ttl", "20m"],
        cwd=ROOT,
        env=stack.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        _wait(lambda: _terraform_running(lab), 120, f"Terraform to work on {lab}")
        demo.send_signal(signal.SIGINT)
        said, _ = demo.communicate(timeout=90)
    finally:
        demo.kill()
    assert demo.returncode == 130, said
    assert "Cancelled" in said
    _wait(lambda: not _terraform_running(lab), 60, f"Terraform to leave {lab}")
    keys = [
        o["Key"]
        for o in stack.session()
        .client("s3")
        .list_objects_v2(Bucket=stack.bucket.name, Prefix=names.lab_prefix(lab))
        .get("Contents", [])
    ]
    assert not [key for key in keys if key.endswith(".tflock")]
    assert _scheduled_ends(lab), "an interrupted up must still have its end"
    ended = stack.up(lab)
    assert ended.code == 0, ended.said
    assert stack.down(lab).code == 0


def test_down_leaves_nothing_and_may_be_repeated(live: Stack) -> None:
    """should destroy the lab, say what was looked at, cancel its end, and succeed once more."""
    ended = live.down(LAB)
    assert ended.code == 0, ended.said
    _, left = Sweeper(live.cloud()).look(LAB)
    assert left == []
    assert LAB not in live.bucket.list_labs()
    assert _scheduled_ends(LAB) == []
    assert not (lab_home() / "labs" / LAB).exists()
    assert "nothing left" in _artifact(names.artifact_key(LAB, "teardown"))["data"]
    assert not _containers(LAB)
    again = live.down(LAB)
    assert again.code == 0, again.said


def _answers(live: Stack) -> bool:
    key = live.secrets.require(names.key_secret(LAB))
    answer = open_client(_endpoint(live), key).chat.completions.create(
        model="bedrock-titan-lite", messages=[{"role": "user", "content": "Still there?"}]
    )
    return bool(answer.choices[0].message.content)


def _endpoint(live: Stack) -> Endpoint:
    """Where the lab answers now, and how it is known."""
    task = live.service(LAB).running_task()
    assert task is not None
    trust = LabRecord.model_validate(_recorded(live)).trust
    assert trust is not None
    return Endpoint.of(LAB, task.address, trust.ca)


def _get(live: Stack, path: str, key: str | None) -> httpx.Response:
    endpoint = _endpoint(live)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(timeout=10, headers=headers, **pinned(endpoint)) as client:
        return client.get(f"{endpoint.url}{path}")


def _status(endpoint: Endpoint, key: str) -> int:
    """What the gateway answers to the key; 0 if it does not answer."""
    client = open_client(endpoint, key).with_options(max_retries=0, timeout=5)
    try:
        return client.models.with_raw_response.list().status_code
    except APIStatusError as error:
        return error.status_code
    except APIConnectionError:
        return 0


def _change(stack: Stack, flow: str, **parameters: object) -> Ended:
    given = json.dumps({"lab": LAB, **parameters})
    return stack.prefect("deployment", "run", f"{flow}/local", "--params", given, "--watch")


def _watch_from(stack: Stack, address: str, *, follow: bool) -> None:
    """Run a watch of the lab, as if the deployer were at ``address``."""
    settings = {
        **target_environment("local"),
        "LAB_DEPLOYER_ADDRESS": address,
        "LAB_FOLLOW_ADDRESS": str(follow),
    }
    code = f"from flows.lab_watch import lab_watch; lab_watch(lab={LAB!r})"
    assigned = [f"{name}={value}" for name, value in settings.items()]
    ended = stack.command(["env", *assigned, sys.executable, "-c", code])
    assert ended.code == 0, ended.said


def _misses() -> list[str]:
    """The checks that the newest table of the lab's posture says were missed."""
    artifact = _artifact(names.artifact_key(LAB, "posture"))
    assert artifact is not None
    rows = (line.split(" | ") for line in artifact["data"].splitlines())
    return [row[0].removeprefix("| ") for row in rows if row[1:2] == ["MISSED"]]


def _recorded(stack: Stack) -> dict[str, Any]:
    found = stack.bucket.read_json(names.lab_record_key(LAB))
    assert found is not None
    return found


def _scheduled_ends(lab: str) -> list[dict[str, str]]:
    with prefect_api.Api() as api:
        return api._ask(
            "POST",
            "/flow_runs/filter",
            {
                "flow_runs": {
                    "tags": {"all_": ["lab-end", f"lab:{lab}"]},
                    "state": {"type": {"any_": ["SCHEDULED"]}},
                }
            },
        )


def _artifact(key: str) -> dict[str, str] | None:
    with prefect_api.Api() as api:
        return api._ask("GET", f"/artifacts/{key}/latest")


def _artifacts(key: str) -> list[dict[str, Any]]:
    """Every version of the artifact."""
    with prefect_api.Api() as api:
        return api._ask("POST", "/artifacts/filter", {"artifacts": {"key": {"any_": [key]}}})


def _containers(lab: str) -> list[Container]:
    name = names.resource_name(lab)
    return [c for c in docker.from_env().containers.list(all=True) if name in str(c.labels)]


def _terraform_running(lab: str) -> bool:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            argv = (process / "cmdline").read_bytes().split(b"\0")
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        of_lab = f"/labs/{lab}\0".encode() in environment + b"\0"
        if argv[0].endswith(b"terraform") and b"apply" in argv and of_lab:
            return True
    return False


def _wait(check: Callable[[], object], deadline: float, what: str) -> None:
    end = time.monotonic() + deadline
    while not check():
        assert time.monotonic() < end, f"{what} took more than {deadline} s"
        time.sleep(0.2)
