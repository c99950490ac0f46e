"""The local cloud itself: what survives its stop and its death, and what keeps it from starting."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import docker
import pytest
from docker.errors import ImageNotFound

from adapters.image.base_image import PUBLIC_PYTHON, ensure_base_image
from lab.errors import PermanentError
from workstation import localcloud
from workstation.deployer import root_session
from workstation.localcloud import start_local_cloud, stop_local_cloud
from workstation.targets import state_home

NAME = "survivor"
# A change is on disk at the latest this long after the last call.
SAVED_AFTER_SECONDS = 3.0
CONTENT = b'{"serial": 7}'


def log(text: str) -> None:
    sys.stderr.write(f"· {text}\n")


def aws(service: str) -> Any:
    return root_session().client(cast(Any, service), endpoint_url=localcloud.ENDPOINT_URL)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """The project's own state, so that labs which run now survive these tests too."""
    ran_before = localcloud.is_answering()
    home = state_home()
    start_local_cloud(home, log)
    yield home
    if ran_before:
        start_local_cloud(home, log)
    else:
        stop_local_cloud(home, log)


@pytest.fixture(scope="module")
def service(home: Path) -> Iterator[str]:
    """A running ECS service from a pushed image, and one thing in each service a lab uses."""
    with contextlib.ExitStack() as undo:
        image = push_image(docker.from_env(), undo)
        vpc = make_one_of_each(undo)
        aws("ecs").register_task_definition(
            family=NAME,
            networkMode="awsvpc",
            requiresCompatibilities=["FARGATE"],
            cpu="256",
            memory="512",
            containerDefinitions=[
                {
                    "name": "sleeper",
                    "image": image,
                    # MiniStack passes on a command, but no entry point.
                    "command": ["python3", "-c", "import signal; signal.pause()"],
                }
            ],
        )
        (subnet,) = aws("ec2").describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])[
            "Subnets"
        ]
        aws("ecs").create_cluster(clusterName=NAME)
        undo.callback(aws("ecs").delete_cluster, cluster=NAME)
        aws("ecs").create_service(
            cluster=NAME,
            serviceName=NAME,
            taskDefinition=NAME,
            desiredCount=1,
            launchType="FARGATE",
            networkConfiguration={"awsvpcConfiguration": {"subnets": [subnet["SubnetId"]]}},
        )
        undo.callback(aws("ecs").delete_service, cluster=NAME, service=NAME, force=True)
        wait_for_task()
        # A test that failed half-way may have left none to clean up in.
        undo.callback(start_local_cloud, home, log)
        yield vpc


def make_one_of_each(undo: contextlib.ExitStack) -> str:
    """A log group, a secret, a role, a bucket with an object, a network; the network's ID."""
    aws("logs").create_log_group(logGroupName=f"/{NAME}")
    undo.callback(aws("logs").delete_log_group, logGroupName=f"/{NAME}")
    aws("secretsmanager").create_secret(
        Name=NAME,
        SecretString="hush",  # pragma: allowlist secret: of no lab
    )
    undo.callback(
        aws("secretsmanager").delete_secret, SecretId=NAME, ForceDeleteWithoutRecovery=True
    )
    aws("iam").create_role(RoleName=NAME, AssumeRolePolicyDocument="{}")
    undo.callback(aws("iam").delete_role, RoleName=NAME)
    aws("s3").create_bucket(Bucket=NAME)
    undo.callback(aws("s3").delete_bucket, Bucket=NAME)
    aws("s3").put_object(Bucket=NAME, Key="lab/terraform.tfstate", Body=CONTENT)
    undo.callback(aws("s3").delete_object, Bucket=NAME, Key="lab/terraform.tfstate")
    vpc = str(aws("ec2").create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"])
    undo.callback(aws("ec2").delete_vpc, VpcId=vpc)
    subnet = aws("ec2").create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24")["Subnet"]["SubnetId"]
    undo.callback(aws("ec2").delete_subnet, SubnetId=subnet)
    return vpc


def push_image(client: docker.DockerClient, undo: contextlib.ExitStack) -> str:
    base = ensure_base_image(client, "x86_64", public_reference=PUBLIC_PYTHON, log=log)
    aws("ecr").create_repository(repositoryName=NAME)
    undo.callback(aws("ecr").delete_repository, repositoryName=NAME, force=True)
    repository = f"{localcloud.REGISTRY_HOST}/{NAME}"
    client.images.get(base.reference).tag(repository, tag="1")
    for event in client.images.push(repository, tag="1", stream=True, decode=True):
        assert "error" not in event, event
    # Only the registry has it now, so a task that starts shows that its layers are kept.
    client.images.remove(f"{repository}:1")
    return f"{repository}:1"


def wait_for_task(seconds: float = 60) -> dict[str, Any]:
    """The only running task, once there is exactly one and its container runs."""
    end = time.monotonic() + seconds
    tasks: list[dict[str, Any]] = []
    while time.monotonic() < end:
        arns = aws("ecs").list_tasks(cluster=NAME, desiredStatus="RUNNING")["taskArns"]
        tasks = aws("ecs").describe_tasks(cluster=NAME, tasks=arns)["tasks"] if arns else []
        if [task["lastStatus"] for task in tasks] == ["RUNNING"]:
            return tasks[0]
        time.sleep(0.2)
    raise AssertionError(f"no single running task in {seconds:.0f} s: {tasks}")


def forget_image(client: docker.DockerClient) -> None:
    """Take the image from the engine, so that the next task must pull it from the registry."""
    for image in client.images.list(name=f"{localcloud.REGISTRY_HOST}/{NAME}"):
        for name in [*image.tags, *image.attrs.get("RepoDigests", [])]:
            if name.startswith(f"{localcloud.REGISTRY_HOST}/{NAME}"):
                # With its last tag an image's digest may go too.
                with contextlib.suppress(ImageNotFound):
                    client.images.remove(name, force=True)


def assert_everything_is_there(vpc: str) -> None:
    assert aws("s3").get_object(Bucket=NAME, Key="lab/terraform.tfstate")["Body"].read() == CONTENT
    assert aws("secretsmanager").get_secret_value(SecretId=NAME)["SecretString"] == "hush"
    assert aws("iam").get_role(RoleName=NAME)["Role"]["RoleName"] == NAME
    assert aws("ec2").describe_vpcs(VpcIds=[vpc])["Vpcs"][0]["CidrBlock"] == "10.9.0.0/16"
    assert aws("logs").describe_log_groups(logGroupNamePrefix=f"/{NAME}")["logGroups"]
    (kept,) = aws("ecr").batch_get_image(repositoryName=NAME, imageIds=[{"imageTag": "1"}])[
        "images"
    ]
    for layer in json.loads(kept["imageManifest"])["layers"]:
        address = f"{localcloud.ENDPOINT_URL}/v2/{NAME}/blobs/{layer['digest']}"
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert f"sha256:{hashlib.sha256(answer.read()).hexdigest()}" == layer["digest"]


def test_a_second_start_should_change_nothing(home: Path) -> None:
    first = start_local_cloud(home, log)
    assert start_local_cloud(home, log) == first


def test_a_stop_and_start_should_lose_no_lab(home: Path, service: str) -> None:
    before = wait_for_task()["taskArn"]
    stop_local_cloud(home, log)
    client = docker.from_env()
    forget_image(client)
    assert not client.networks.list(names=[localcloud.NETWORK])
    assert not client.containers.list(all=True, filters={"label": localcloud.OWNED_LABEL})
    start_local_cloud(home, log)
    assert wait_for_task()["taskArn"] != before
    assert_everything_is_there(service)


def test_a_killed_local_cloud_should_lose_no_lab(home: Path, service: str) -> None:
    before = wait_for_task()["taskArn"]
    time.sleep(SAVED_AFTER_SECONDS)
    client = docker.from_env()
    client.containers.get(localcloud.CONTAINER).kill()
    start_local_cloud(home, log)
    assert wait_for_task()["taskArn"] != before
    assert_everything_is_there(service)
    # What the killed one had started is gone, not doubled.
    running = client.containers.list(filters={"label": localcloud.OWNED_LABEL})
    assert len([one for one in running if NAME in str(one.attrs["Config"]["Image"])]) == 1


def test_a_port_in_use_should_be_named_with_its_user(home: Path) -> None:
    stop_local_cloud(home, log)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", localcloud.PORT))
        listener.listen()
        with pytest.raises(PermanentError, match=r"Port 4566 .* by process \d+ .*python") as caught:
            start_local_cloud(home, log)
    assert "stop what uses it" in caught.value.hint
    start_local_cloud(home, log)


def test_a_local_cloud_that_dies_should_be_heard(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_local_cloud(home, log)
    client = docker.from_env()
    base = ensure_base_image(client, "x86_64", public_reference=PUBLIC_PYTHON, log=log)
    words = 'FROM %s\nENTRYPOINT ["python3", "-c", "raise SystemExit(chr(42) * 3)"]\n'
    (home / "dying").mkdir(exist_ok=True)
    (home / "dying" / "Dockerfile").write_text(words % base.reference)
    image, _ = client.images.build(path=str(home / "dying"), network_mode="none", rm=True)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(localcloud, "_ensure_image", lambda *_: image.id)
            with pytest.raises(PermanentError, match=r"exit code 1.*\n\*\*\*"):
                start_local_cloud(home, log)
        start_local_cloud(home, log)
    finally:
        client.images.remove(image.id, force=True)
        (home / "dying" / "Dockerfile").unlink()
        (home / "dying").rmdir()


def test_a_stop_when_nothing_runs_should_be_safe(home: Path) -> None:
    stop_local_cloud(home, log)
    stop_local_cloud(home, log)
    start_local_cloud(home, log)
