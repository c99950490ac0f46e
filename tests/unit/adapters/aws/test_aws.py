"""What AWS says is told in the project's words; a wait ends at once when nothing can come."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import boto3
import pytest
from botocore import exceptions as boto
from botocore.response import StreamingBody
from botocore.stub import ANY

from adapters.aws import session as aws
from adapters.aws.session import Cloud, HeldImage, RegistryLogin, Rollout, told
from lab import waiting
from lab.errors import InvalidInputError, LabError, PermanentError, TransientError
from tests.unit.adapters.aws.stubs import Stubs, session_of

AT = datetime(2030, 1, 31, 12, 0, 0, tzinfo=UTC)
ARN = "arn:aws:ecs:us-east-1:123456789012:"
OLD, NEW = f"{ARN}task-definition/gateway-lab-demo:1", f"{ARN}task-definition/gateway-lab-demo:2"
TASK = f"{ARN}task/gateway-lab-demo/0123"
NAME = "gateway-lab-demo"


@pytest.fixture(params=["us-east-1"])
def stubs(request: pytest.FixtureRequest) -> Iterator[Stubs]:
    made = Stubs(request.param)
    yield made
    made.all_asked()


def client_error(code: str, status: int = 400) -> boto.ClientError:
    return boto.ClientError(
        {
            "Error": {"Code": code, "Message": "it is so"},
            "ResponseMetadata": {"HTTPStatusCode": status},  # type: ignore[typeddict-item]
        },
        "Do",
    )


@pytest.mark.parametrize(
    ("error", "kind", "said", "hint"),
    [
        (client_error("ExpiredToken"), PermanentError, "credentials have expired", "Sign in"),
        (client_error("ExpiredTokenException"), PermanentError, "have expired", "Sign in"),
        (client_error("InvalidClientTokenId", 403), PermanentError, "refuses the cred", "Sign in"),
        (client_error("SignatureDoesNotMatch", 403), PermanentError, "refuses the", "Sign in"),
        (client_error("AccessDenied", 403), PermanentError, "AccessDenied: it is so", "Allow"),
        (client_error("UnauthorizedOperation", 403), PermanentError, "it is so", "Allow"),
        (client_error("ThrottlingException"), TransientError, "it is so", "run the command again"),
        (client_error("SlowDown", 503), TransientError, "it is so", "run the command again"),
        (client_error("Weird", 500), TransientError, "Weird: it is so", "run the command again"),
        (client_error("ClusterNotFound"), PermanentError, "ClusterNotFound: it is so", "Remove"),
        (boto.NoCredentialsError(), PermanentError, "no AWS credentials", "AWS_PROFILE"),
        (
            boto.PartialCredentialsError(provider="env", cred_var="x"),
            PermanentError,
            "no AWS credentials",
            "Sign in",
        ),
        (boto.ProfileNotFound(profile="mine"), PermanentError, "mine", "existing profile"),
        (boto.UnauthorizedSSOTokenError(), PermanentError, "sign-in has expired", "aws sso login"),
        (
            boto.EndpointConnectionError(endpoint_url="https://x"),
            TransientError,
            "https://x",
            "network",
        ),
        (boto.ReadTimeoutError(endpoint_url="https://x"), TransientError, "https://x", "network"),
    ],
)
def test_each_error_is_told_in_our_words(
    error: Exception, kind: type[LabError], said: str, hint: str
) -> None:
    """should say what was being done, what went wrong, what to do, and whether it may pass"""
    with pytest.raises(kind) as caught, told("counting sheep"):
        raise error
    assert caught.value.message.startswith("counting sheep: ")
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_our_own_errors_pass_untouched() -> None:
    """should not wrap what is already told"""
    mine = InvalidInputError("no")
    with pytest.raises(InvalidInputError) as caught, told("counting"):
        raise mine
    assert caught.value is mine


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "us-gov-west-1", "cn-north-1"])
def test_knows_awss_regions_without_a_call(region: str) -> None:
    """should take the regions of every partition"""
    Stubs(region).cloud.check_region()


def test_refuses_an_unknown_region_without_a_call() -> None:
    """should name the region and those that there are"""
    with pytest.raises(InvalidInputError) as caught:
        Stubs("xx-nowhere-1").cloud.check_region()
    assert "'xx-nowhere-1'" in caught.value.message
    assert "eu-central-1" in caught.value.hint


def test_says_whose_credentials_they_are(stubs: Stubs) -> None:
    """should give account and partition"""
    arn = "arn:aws-us-gov:iam::123456789012:user/x"
    stubs.says("sts", "get_caller_identity", {"Account": "123456789012", "Arn": arn})
    assert stubs.cloud.account() == ("123456789012", "aws-us-gov")


def test_no_credentials_are_told() -> None:
    """should say how credentials are given, before a child process needs them"""
    with pytest.raises(PermanentError, match="no AWS credentials"):
        Cloud(boto3.Session(region_name="us-east-1")).environment()


@pytest.mark.parametrize(
    ("stubs", "expected"),
    [
        ("us-east-1", {"Bucket": "b"}),
        (
            "eu-central-1",
            {"Bucket": "b", "CreateBucketConfiguration": {"LocationConstraint": "eu-central-1"}},
        ),
    ],
    indirect=["stubs"],
)
@pytest.mark.parametrize("raced", [False, True])
def test_makes_a_missing_state_bucket(stubs: Stubs, expected: dict[str, Any], raced: bool) -> None:
    """should make it in its region, private, encrypted and versioned, also beside another up"""
    stubs.fails("s3", "head_bucket", "404", 404)
    if raced:
        stubs.fails("s3", "create_bucket", "BucketAlreadyOwnedByYou", 409)
    else:
        stubs.says("s3", "create_bucket", {}, **expected)
    apply_settings(stubs)
    assert stubs.cloud.ensure_state_bucket("b") is True


def apply_settings(stubs: Stubs) -> None:
    block = {
        "BlockPublicAcls": True,
        "IgnorePublicAcls": True,
        "BlockPublicPolicy": True,
        "RestrictPublicBuckets": True,
    }
    stubs.says(
        "s3", "put_public_access_block", {}, Bucket="b", PublicAccessBlockConfiguration=block
    )
    stubs.says("s3", "put_bucket_encryption", {}, Bucket="b", ServerSideEncryptionConfiguration=ANY)
    stubs.says(
        "s3",
        "put_bucket_versioning",
        {},
        Bucket="b",
        VersioningConfiguration={"Status": "Enabled"},
    )
    stubs.says(
        "s3", "put_bucket_lifecycle_configuration", {}, Bucket="b", LifecycleConfiguration=ANY
    )
    stubs.says("s3", "put_bucket_tagging", {}, Bucket="b", Tagging=ANY)


@pytest.mark.parametrize("tagged", [None, []])
def test_brings_an_existing_bucket_to_the_same_settings(
    stubs: Stubs, tagged: list[dict[str, str]] | None
) -> None:
    """should leave no bucket open that an interrupted up had only made"""
    stubs.says("s3", "head_bucket", {}, Bucket="b")
    if tagged is None:
        stubs.fails("s3", "get_bucket_tagging", "NoSuchTagSet", 404)
    else:
        stubs.says("s3", "get_bucket_tagging", {"TagSet": tagged}, Bucket="b")
    apply_settings(stubs)
    assert stubs.cloud.ensure_state_bucket("b") is False


def test_a_settled_bucket_is_left_alone(stubs: Stubs) -> None:
    """should change nothing of a bucket whose last setting, the tag, is there"""
    stubs.says("s3", "head_bucket", {}, Bucket="b")
    tags = [{"Key": "lab:project", "Value": "gateway-lab"}]
    stubs.says("s3", "get_bucket_tagging", {"TagSet": tags}, Bucket="b")
    assert stubs.cloud.ensure_state_bucket("b") is False


def test_somebody_elses_bucket_is_refused(stubs: Stubs) -> None:
    """should touch nothing of a bucket that is not ours"""
    stubs.fails("s3", "head_bucket", "403", 403)
    with pytest.raises(PermanentError, match="the bucket b: s3:ListBucket is not allowed: 403"):
        stubs.cloud.ensure_state_bucket("b")


@pytest.mark.parametrize("code", ["ImageNotFoundException", "RepositoryNotFoundException"])
def test_an_image_never_pushed_has_no_digest(stubs: Stubs, code: str) -> None:
    """should be None where image or repository is missing"""
    stubs.fails("ecr", "describe_images", code)
    assert stubs.cloud.image_digest("repo", "tag") is None


def test_a_pushed_image_has_a_digest(stubs: Stubs) -> None:
    """should be the registry's digest"""
    stubs.says("ecr", "describe_images", {"imageDetails": [{"imageDigest": "sha256:01"}]})
    assert stubs.cloud.image_digest("repo", "tag") == "sha256:01"


MANIFEST = json.dumps({"schemaVersion": 2, "config": {"digest": "sha256:0c"}})
DIGEST = f"sha256:{hashlib.sha256(MANIFEST.encode()).hexdigest()}"


def holds(stubs: Stubs, digest: str) -> None:
    image = {"imageManifest": MANIFEST, "imageId": {"imageDigest": digest, "imageTag": "tag"}}
    stubs.says("ecr", "batch_get_image", {"images": [image], "failures": []})


def test_a_held_image_is_known_by_its_manifest(stubs: Stubs) -> None:
    """should be the digest of what the registry gives out, and that of the configuration in it"""
    holds(stubs, DIGEST)
    assert stubs.cloud.held_image("repo", "tag") == HeldImage(DIGEST, "sha256:0c")


def test_a_manifest_of_another_digest_is_refused(stubs: Stubs) -> None:
    """should tell both: what the registry says and what it gives out"""
    holds(stubs, "sha256:bad")
    with pytest.raises(PermanentError) as caught:
        stubs.cloud.held_image("repo", "tag")
    assert "sha256:bad" in caught.value.message
    assert DIGEST in caught.value.message


def test_an_image_never_pushed_is_not_held(stubs: Stubs) -> None:
    """should be None where image or repository is missing"""
    failure = {"imageId": {"imageTag": "tag"}, "failureCode": "ImageNotFound"}
    stubs.says("ecr", "batch_get_image", {"images": [], "failures": [failure]})
    assert stubs.cloud.held_image("repo", "tag") is None
    stubs.fails("ecr", "batch_get_image", "RepositoryNotFoundException")
    assert stubs.cloud.held_image("repo", "tag") is None


def test_registry_login_hides_its_password(stubs: Stubs) -> None:
    """should be readable by Docker and by no log"""
    token = base64.b64encode(b"AWS:pass:word").decode()
    data = [{"authorizationToken": token, "proxyEndpoint": "https://r"}]
    stubs.says("ecr", "get_authorization_token", {"authorizationData": data})
    login = stubs.cloud.registry_login()
    assert login == RegistryLogin("AWS", "pass:word", "https://r")
    assert "pass:word" not in f"{login} {login!r} {[login]}"


def test_a_secret_that_is_missing_is_no_error(stubs: Stubs) -> None:
    """should tell its value, or that there is none, and no failure for the latter"""
    stubs.says(
        "secretsmanager",
        "get_secret_value",
        {"SecretString": "PEM"},  # pragma: allowlist secret: made up
        SecretId="s",
    )
    stubs.fails("secretsmanager", "get_secret_value", "ResourceNotFoundException")
    assert stubs.cloud.find_secret("s") == "PEM"
    assert stubs.cloud.find_secret("s") is None
    stubs.fails("secretsmanager", "get_secret_value", "AccessDeniedException")
    with pytest.raises(PermanentError, match="AccessDenied"):
        stubs.cloud.find_secret("s")


@pytest.mark.parametrize(
    ("code", "words", "told"),
    [
        ("ResourceNotFoundException", "can't find the specified secret", "is gone"),
        ("InvalidRequestException", "it was marked for deletion", "waits for its deletion"),
    ],
)
def test_a_key_that_was_deleted_says_how_to_get_another(
    stubs: Stubs, code: str, words: str, told: str
) -> None:
    """should name the secret, what mends it, and what a running lab does until then"""
    stubs.fails("secretsmanager", "get_secret_value", code, message=words)
    with pytest.raises(PermanentError, match=f"the secret demo/key {told}") as caught:
        stubs.cloud.gateway_key("demo/key")
    assert "lab-up" in caught.value.hint
    assert "serves on" in caught.value.hint


def test_another_refusal_of_the_key_is_told_as_it_is(stubs: Stubs) -> None:
    """should not take every invalid request for a deleted secret"""
    stubs.fails("secretsmanager", "get_secret_value", "InvalidRequestException", message="odd")
    with pytest.raises(PermanentError, match="InvalidRequestException: odd"):
        stubs.cloud.gateway_key("demo/key")


def test_a_secret_that_waits_for_its_deletion_is_taken_back(stubs: Stubs) -> None:
    """should restore that one, and touch neither a living nor a missing one"""
    living, doomed = {"Name": "s"}, {"Name": "s", "DeletedDate": AT}
    stubs.says("secretsmanager", "describe_secret", living, SecretId="s")
    assert stubs.cloud.keep_secret("s") is False
    stubs.fails("secretsmanager", "describe_secret", "ResourceNotFoundException")
    assert stubs.cloud.keep_secret("s") is False
    stubs.says("secretsmanager", "describe_secret", doomed, SecretId="s")
    stubs.says("secretsmanager", "restore_secret", {"Name": "s"}, SecretId="s")
    assert stubs.cloud.keep_secret("s") is True


def service(*deployments: dict[str, Any], desired: int = 1, serves: str = OLD) -> dict[str, Any]:
    return {
        "services": [
            {
                "status": "ACTIVE",
                "taskDefinition": serves,
                "desiredCount": desired,
                "deployments": list(deployments),
                "events": [{"id": "e", "message": "has started 1 task", "createdAt": AT}],
            }
        ]
    }


def deployment(
    definition: str, state: str = "COMPLETED", running: int = 1, **more: Any
) -> dict[str, Any]:
    head = {"id": f"ecs-svc/{definition[-1]}", "taskDefinition": definition, "status": "PRIMARY"}
    return {**head, "rolloutState": state, "runningCount": running, **more}


def test_start_points_the_service_and_finds_what_served(stubs: Stubs) -> None:
    """should start the new revision with one task and remember the old one"""
    stubs.says("ecs", "describe_services", service(deployment(OLD)))
    tasks(stubs, "STOPPED", stopped())
    starts(stubs, anew=False)
    assert stubs.cloud.start_rollout(NAME, NAME, NEW) == Rollout(
        NAME, NAME, NEW, OLD, frozenset({TASK})
    )


def test_start_again_starts_nothing(stubs: Stubs) -> None:
    """should leave a rollout under way alone and still know what served before"""
    both = (deployment(NEW, "IN_PROGRESS", 0), deployment(OLD))
    stubs.says("ecs", "describe_services", service(*both, serves=NEW))
    tasks(stubs, "STOPPED")
    assert stubs.cloud.start_rollout(NAME, NAME, NEW).previous == OLD


@pytest.mark.parametrize(("runs", "anew"), [("sha256:01", False), ("sha256:02", True)])
def test_a_revision_with_another_image_is_started_anew(stubs: Stubs, runs: str, anew: bool) -> None:
    """should replace a task whose image was since pushed anew under the same tag, and no other"""
    stubs.says("ecs", "describe_services", service(deployment(NEW), serves=NEW))
    tasks(stubs, "STOPPED")
    containers = [{"name": "gateway", "imageDigest": runs}]
    tasks(stubs, "RUNNING", task(containers=containers))
    interface(stubs, PublicIp="8.8.4.4")
    if anew:
        stubs.says(
            "ecs",
            "update_service",
            {},
            cluster=NAME,
            service=NAME,
            taskDefinition=NEW,
            desiredCount=1,
            forceNewDeployment=True,
        )
    stubs.cloud.start_rollout(NAME, NAME, NEW, image_digest="sha256:01")


@pytest.mark.parametrize("before", [deployment(OLD, running=0), deployment(OLD, "FAILED")])
def test_what_never_served_is_nothing_to_go_back_to(stubs: Stubs, before: dict[str, Any]) -> None:
    """should not name a revision that had no task or had failed"""
    stubs.says("ecs", "describe_services", service(before, desired=0))
    tasks(stubs, "STOPPED")
    starts(stubs, anew=True)
    assert stubs.cloud.start_rollout(NAME, NAME, NEW).previous is None


@pytest.mark.parametrize("status", [None, "INACTIVE", "DRAINING"])
def test_start_needs_a_service(stubs: Stubs, status: str | None) -> None:
    """should say that the service is gone"""
    stubs.says("ecs", "describe_services", {"services": [{"status": status}] if status else []})
    with pytest.raises(PermanentError, match="is gone"):
        stubs.cloud.start_rollout(NAME, NAME, NEW)


def test_a_failed_first_rollout_is_stopped(stubs: Stubs) -> None:
    """should run no task where nothing had served before, to end the crash loop"""
    stubs.says("ecs", "update_service", {}, cluster=NAME, service=NAME, desiredCount=0)
    stubs.cloud.abandon_rollout(Rollout(NAME, NAME, NEW, None, frozenset()))


def test_what_served_before_a_failed_rollout_is_left_alone(stubs: Stubs) -> None:
    """should call nothing: an update would replace the task that serves, and its address"""
    stubs.cloud.abandon_rollout(Rollout(NAME, NAME, NEW, OLD, frozenset()))


def task(**changes: Any) -> dict[str, Any]:
    details = [{"name": "networkInterfaceId", "value": "eni-1"}]
    return {
        "taskArn": TASK,
        "taskDefinitionArn": NEW,
        "lastStatus": "RUNNING",
        "createdAt": AT,
        "startedBy": "ecs-svc/2",
        "containers": [{"name": "gateway", "imageDigest": "sha256:01"}],
        "attachments": [{"details": details}],
        **changes,
    }


def starts(stubs: Stubs, *, anew: bool) -> None:
    stubs.says(
        "ecs",
        "update_service",
        {},
        cluster=NAME,
        service=NAME,
        taskDefinition=NEW,
        desiredCount=1,
        forceNewDeployment=anew,
    )


def tasks(stubs: Stubs, status: str, *found: dict[str, Any]) -> None:
    stubs.says(
        "ecs",
        "list_tasks",
        {"taskArns": [t["taskArn"] for t in found]},
        cluster=NAME,
        serviceName=NAME,
        desiredStatus=status,
    )
    if found:
        stubs.says("ecs", "describe_tasks", {"tasks": list(found)})


def interface(stubs: Stubs, **association: str) -> None:
    found = {"NetworkInterfaces": [{"Association": association} if association else {}]}
    stubs.says("ec2", "describe_network_interfaces", found, NetworkInterfaceIds=["eni-1"])


def test_address_is_the_interfaces_public_one(stubs: Stubs) -> None:
    """should ask EC2 for the public address where the task has an interface"""
    tasks(stubs, "RUNNING", task())
    interface(stubs, PublicIp="8.8.4.4")
    found = stubs.cloud.running_task(NAME, NAME, NEW)
    assert found == aws.RunningTask(TASK, "8.8.4.4", "sha256:01")


def test_address_is_the_attachments_where_there_is_no_interface(stubs: Stubs) -> None:
    """should take the attachment's own address"""
    details = [{"name": "privateIPv4Address", "value": "172.18.0.5"}]
    tasks(stubs, "RUNNING", task(attachments=[{"details": details}]))
    found = stubs.cloud.running_task(NAME, NAME)
    assert found is not None
    assert found.address == "172.18.0.5"


def test_a_task_without_an_address_does_not_serve_yet(stubs: Stubs) -> None:
    """should not hand out the private address in place of a public one"""
    tasks(stubs, "RUNNING", task())
    interface(stubs)
    assert stubs.cloud.running_task(NAME, NAME, NEW) is None


@pytest.mark.parametrize("other", [{"taskDefinitionArn": OLD}, {"lastStatus": "PENDING"}])
def test_another_revisions_task_does_not_serve(stubs: Stubs, other: dict[str, Any]) -> None:
    """should find a task only where it is the wanted revision and runs"""
    tasks(stubs, "RUNNING", task(**other))
    assert stubs.cloud.running_task(NAME, NAME, NEW) is None


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses of a wait, counted and not slept."""
    paused: list[float] = []
    options = waiting.wait_for.__kwdefaults__
    monkeypatch.setitem(options, "sleep", paused.append)
    return paused


def await_rollout(stubs: Stubs, log: list[str] | None = None) -> aws.RunningTask:
    said: list[str] = [] if log is None else log
    begun = Rollout(NAME, NAME, NEW, None, frozenset({f"{TASK}-before"}))
    return stubs.cloud.await_rollout(
        begun, log_group="/gateway-lab/demo", deadline=60, log=said.append
    )


def test_rollout_completes(stubs: Stubs, unhurried: list[float]) -> None:
    """should wait while ECS deploys, and tell each of its events once"""
    said: list[str] = []
    stubs.says("ecs", "describe_services", service(deployment(NEW, "IN_PROGRESS", 0)))
    tasks(stubs, "STOPPED")
    stubs.says("ecs", "describe_services", service(deployment(NEW)))
    tasks(stubs, "STOPPED")
    tasks(stubs, "RUNNING", task())
    interface(stubs, PublicIp="8.8.4.4")
    assert await_rollout(stubs, said).address == "8.8.4.4"
    assert len(unhurried) == 1
    assert said == ["ecs: has started 1 task"]


def stopped(**changes: Any) -> dict[str, Any]:
    ended = {
        "lastStatus": "STOPPED",
        "stopCode": "EssentialContainerExited",
        "stoppedReason": "Essential container in task exited",
        "containers": [{"name": "gateway", "exitCode": 3, "reason": "no key"}],
    }
    return task(**(ended | changes))


def test_a_failed_task_ends_the_wait_with_its_words(stubs: Stubs, unhurried: list[float]) -> None:
    """should tell ECS's reason, the exit code and the last lines of the log, at once"""
    stubs.says("ecs", "describe_services", service(deployment(NEW, "IN_PROGRESS", 0)))
    tasks(stubs, "STOPPED", stopped())
    stubs.says(
        "logs",
        "get_log_events",
        {"events": [{"message": "starting\n"}, {"message": "no master key\n"}]},
        logGroupName="/gateway-lab/demo",
        logStreamName="gateway/gateway/0123",
        limit=ANY,
        startFromHead=False,
    )
    with pytest.raises(PermanentError) as caught:
        await_rollout(stubs)
    said = caught.value.message
    assert "Essential container in task exited" in said
    assert "container gateway exited with 3" in said
    assert said.endswith("  | starting\n  | no master key")
    assert unhurried == []


def test_a_missing_log_does_not_hide_the_failure(stubs: Stubs) -> None:
    """should tell the reason also where the container wrote nothing"""
    stubs.says("ecs", "describe_services", service(deployment(NEW, "IN_PROGRESS", 0)))
    tasks(stubs, "STOPPED", stopped(stopCode="TaskFailedToStart", stoppedReason="CannotPull"))
    stubs.fails("logs", "get_log_events", "ResourceNotFoundException")
    with pytest.raises(PermanentError, match="CannotPull"):
        await_rollout(stubs)


@pytest.mark.parametrize(
    "harmless",
    [
        {"stopCode": "SpotInterruption"},
        {"stopCode": "ServiceSchedulerInitiated"},
        {"taskArn": f"{TASK}-before"},
        {"taskDefinitionArn": OLD},
    ],
)
def test_a_task_that_was_taken_away_is_no_failure(
    stubs: Stubs, unhurried: list[float], harmless: dict[str, Any]
) -> None:
    """should go on where ECS starts another task by itself, or the task is of another rollout"""
    stubs.says("ecs", "describe_services", service(deployment(NEW)))
    tasks(stubs, "STOPPED", stopped(**harmless))
    tasks(stubs, "RUNNING", task())
    interface(stubs, PublicIp="8.8.4.4")
    assert await_rollout(stubs).address == "8.8.4.4"


def test_a_rollout_that_ecs_gave_up_is_told(stubs: Stubs) -> None:
    """should hold ECS's reason"""
    failed = deployment(NEW, "FAILED", rolloutStateReason="circuit breaker")
    stubs.says("ecs", "describe_services", service(failed))
    tasks(stubs, "STOPPED")
    with pytest.raises(PermanentError, match="circuit breaker"):
        await_rollout(stubs)


def test_a_vanished_deployment_is_told(stubs: Stubs) -> None:
    """should say that another run may have changed the service"""
    stubs.says("ecs", "describe_services", service(deployment(OLD)))
    tasks(stubs, "STOPPED")
    with pytest.raises(PermanentError) as caught:
        await_rollout(stubs)
    assert "no longer deploys gateway-lab-demo:2" in caught.value.message
    assert "Another run" in caught.value.hint


@pytest.mark.parametrize("desired", [1, 0])
def test_a_revision_that_serves_already_is_not_nothing(stubs: Stubs, desired: int) -> None:
    """should remember it as what served, so that a failure later does not take it to zero"""
    stubs.says("ecs", "describe_services", service(deployment(NEW), desired=desired, serves=NEW))
    tasks(stubs, "STOPPED")
    if desired == 0:
        # Scaling alone would make no deployment to wait for.
        starts(stubs, anew=True)
    begun = stubs.cloud.start_rollout(NAME, NAME, NEW)
    assert begun.previous == NEW
    stubs.cloud.abandon_rollout(begun)


def members(operation: str, shape: str) -> set[str]:
    model = session_of("us-east-1").client("scheduler").meta.service_model
    return set(getattr(model.operation_model(operation), shape).members)


def test_a_moved_stop_keeps_all_but_its_time(stubs: Stubs) -> None:
    """should give again everything that an update would otherwise set back to its default"""
    kept: dict[str, Any] = {
        "Name": "stop",
        "GroupName": NAME,
        "ActionAfterCompletion": "DELETE",
        "Description": "stops the lab",
        "EndDate": AT,
        "StartDate": AT,
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "KmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/k",
        "ScheduleExpressionTimezone": "UTC",
        "State": "ENABLED",
        "Target": {"Arn": "arn:aws:states:::x", "RoleArn": "arn:aws:iam::1:role/x", "Input": "{}"},
    }
    # A setting of AWS's that this test does not know yet must not go unnoticed.
    settable = members("UpdateSchedule", "input_shape") - {"ClientToken"}
    assert set(kept) | {"ScheduleExpression"} == settable
    told_only = {
        "Arn": "arn:aws:scheduler:us-east-1:1:schedule/x/stop",
        "CreationDate": AT,
        "LastModificationDate": AT,
    }
    assert settable | set(told_only) == members("GetSchedule", "output_shape")
    before = {**kept, **told_only, "ScheduleExpression": "at(2030-01-31T12:15:00)"}
    stubs.says("scheduler", "get_schedule", before, Name="stop", GroupName=NAME)
    stubs.says(
        "scheduler",
        "update_schedule",
        {"ScheduleArn": told_only["Arn"]},
        **kept,
        ScheduleExpression="at(2030-01-31T14:30:05)",
    )
    berlin = timezone(timedelta(hours=1))
    assert stubs.cloud.move_stop("demo", datetime(2030, 1, 31, 15, 30, 5, tzinfo=berlin)) is True


def test_a_lab_without_a_stop_has_none_to_move(stubs: Stubs) -> None:
    """should say so, and make none"""
    stubs.fails("scheduler", "get_schedule", "ResourceNotFoundException", 404)
    assert stubs.cloud.move_stop("demo", AT) is False


def test_a_stop_that_cannot_be_read_is_told(stubs: Stubs) -> None:
    """should not take a refusal for a lab without a stop"""
    stubs.fails("scheduler", "get_schedule", "AccessDeniedException", 403)
    with pytest.raises(PermanentError, match="moving the stop of demo"):
        stubs.cloud.move_stop("demo", AT)


def test_a_cluster_is_made_once_with_its_capacity(stubs: Stubs) -> None:
    """should make in one call what Terraform waits for twice, and touch none that is there"""
    gone = {"clusterArn": f"{ARN}cluster/{NAME}", "status": "INACTIVE"}
    stubs.says("ecs", "describe_clusters", {"clusters": [gone]}, clusters=[NAME])
    stubs.says(
        "ecs",
        "create_cluster",
        {},
        clusterName=NAME,
        capacityProviders=["FARGATE", "FARGATE_SPOT"],
        settings=[{"name": "containerInsights", "value": "disabled"}],
        tags=[{"key": "lab:id", "value": "demo"}],
    )
    assert stubs.cloud.ensure_cluster(NAME, {"lab:id": "demo"}) is True
    live = {**gone, "status": "ACTIVE"}
    stubs.says("ecs", "describe_clusters", {"clusters": [live]}, clusters=[NAME])
    assert stubs.cloud.ensure_cluster(NAME, {"lab:id": "demo"}) is False


def test_the_end_is_tagged_on_the_live_cluster_alone(stubs: Stubs) -> None:
    """should write the time as everywhere, and pass over a cluster that is deleted"""
    live, gone = f"{ARN}cluster/{NAME}", f"{ARN}cluster/gone"
    found = [
        {"clusterArn": gone, "status": "INACTIVE"},
        {"clusterArn": live, "status": "ACTIVE"},
    ]
    stubs.says("ecs", "describe_clusters", {"clusters": found}, clusters=[NAME])
    tag = {"key": "lab:expires-at", "value": "2030-01-31T12:00:00Z"}
    stubs.says("ecs", "tag_resource", {}, resourceArn=live, tags=[tag])
    stubs.cloud.tag_end("demo", AT)


def test_allowed_hosts_are_those_of_the_labs_firewall(stubs: Stubs) -> None:
    """should ask by tag and name, and gather the hosts of every rule"""
    rules = [
        {"IpRanges": [{"CidrIp": "8.8.8.8/32"}, {"CidrIp": "1.1.1.1/32"}]},
        {"IpRanges": [{"CidrIp": "4.4.4.4/32"}]},
    ]
    stubs.says(
        "ec2",
        "describe_security_groups",
        {"SecurityGroups": [{"IpPermissions": rules}]},
        Filters=[
            {"Name": "tag:lab:id", "Values": ["demo"]},
            {"Name": "group-name", "Values": [NAME]},
        ],
    )
    assert stubs.cloud.allowed_cidrs("demo") == ["1.1.1.1/32", "4.4.4.4/32", "8.8.8.8/32"]


@pytest.mark.parametrize(
    ("replacing", "condition"), [(None, {"IfNoneMatch": "*"}), ('"e1"', {"IfMatch": '"e1"'})]
)
def test_an_object_is_written_on_its_condition(
    stubs: Stubs, replacing: str | None, condition: dict[str, str]
) -> None:
    """should write only what nobody else has written meanwhile, and tell the new ETag"""
    stubs.says("s3", "put_object", {"ETag": '"e2"'}, Bucket="b", Key="k", Body=b"x", **condition)
    assert stubs.cloud.write_object("b", "k", b"x", replacing) == '"e2"'


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("PreconditionFailed", 412),
        ("ConditionalRequestConflict", 409),
        ("412", 412),
        ("409", 409),
        ("NoSuchKey", 404),
    ],
)
def test_a_beaten_write_is_no_error(stubs: Stubs, code: str, status: int) -> None:
    """should be None where somebody else wrote or removed the object first"""
    stubs.fails("s3", "put_object", code, status)
    assert stubs.cloud.write_object("b", "k", b"x", '"e1"') is None


def test_a_write_that_failed_is_not_taken_for_a_beaten_one(stubs: Stubs) -> None:
    """should raise, for whoever believes to be beaten gives up a lease that it has"""
    stubs.fails("s3", "put_object", "SlowDown", 503)
    with pytest.raises(TransientError, match="writing s3://b/k"):
        stubs.cloud.write_object("b", "k", b"x", '"e1"')


def test_an_object_is_read_with_its_etag(stubs: Stubs) -> None:
    """should give what the next write needs"""
    body = StreamingBody(io.BytesIO(b"text"), 4)
    stubs.says("s3", "get_object", {"Body": body, "ETag": '"e1"'}, Bucket="b", Key="k")
    assert stubs.cloud.read_object("b", "k") == (b"text", '"e1"')


@pytest.mark.parametrize("code", ["NoSuchKey", "NoSuchBucket"])
def test_an_object_that_is_not_there_is_none(stubs: Stubs, code: str) -> None:
    """should be None where neither object nor bucket exists"""
    stubs.fails("s3", "get_object", code, 404)
    assert stubs.cloud.read_object("b", "k") is None


SECRET = f"{NAME}/gateway-key"
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize("value", ["sk-old", None])
def test_the_key_before_is_asked_for_by_its_label(stubs: Stubs, value: str | None) -> None:
    """should be the value that the present one has replaced, if that was one"""
    said = {"SecretString": value} if value else {}
    stubs.says(
        "secretsmanager", "get_secret_value", said, SecretId=SECRET, VersionStage="AWSPREVIOUS"
    )
    assert stubs.cloud.key_before(SECRET) == value


def test_a_first_key_has_none_before_it(stubs: Stubs) -> None:
    """should be None, which is no error"""
    stubs.fails("secretsmanager", "get_secret_value", "ResourceNotFoundException")
    assert stubs.cloud.key_before(SECRET) is None


def test_a_key_is_as_old_as_the_version_that_is_current(stubs: Stubs) -> None:
    """should be the time of the present value, not of the secret or of an older value"""
    versions = [
        {"VersionId": "a" * 32, "VersionStages": ["AWSPREVIOUS"], "CreatedDate": AT - MINUTE},
        {"VersionId": "b" * 32, "VersionStages": ["AWSCURRENT"], "CreatedDate": AT},
        {"VersionId": "c" * 32, "CreatedDate": AT + MINUTE},
    ]
    said = {"Versions": versions}
    stubs.says("secretsmanager", "list_secret_version_ids", said, SecretId=SECRET)
    assert stubs.cloud.key_written(SECRET) == AT


def test_no_secret_has_no_age(stubs: Stubs) -> None:
    """should be None for a secret that is not there"""
    stubs.fails("secretsmanager", "list_secret_version_ids", "ResourceNotFoundException")
    assert stubs.cloud.key_written(SECRET) is None


@pytest.mark.parametrize(
    ("began", "before"),
    [
        ([], False),
        ([AT - MINUTE], True),
        ([AT], False),
        ([AT - MINUTE, AT + MINUTE], False),
        ([AT - MINUTE, AT - 2 * MINUTE], True),
    ],
)
def test_what_serves_is_as_old_as_its_newest_task(
    stubs: Stubs, began: list[datetime], before: bool
) -> None:
    """should not be from before where one task began after the moment"""
    tasks(stubs, "RUNNING", *(task(createdAt=moment) for moment in began))
    assert stubs.cloud.serves_from_before(NAME, NAME, AT) is before


def test_a_task_that_does_not_run_yet_does_not_serve(stubs: Stubs) -> None:
    """should look at what answers now"""
    pending = task(createdAt=AT + MINUTE, lastStatus="PENDING")
    tasks(stubs, "RUNNING", task(createdAt=AT - MINUTE), pending)
    assert stubs.cloud.serves_from_before(NAME, NAME, AT) is True


def test_a_task_from_before_is_replaced_by_the_same_revision(stubs: Stubs) -> None:
    """should force a deployment, which alone starts another task, and remember what serves"""
    stubs.says("ecs", "describe_services", service(deployment(NEW, createdAt=AT), serves=NEW))
    tasks(stubs, "STOPPED")
    tasks(stubs, "RUNNING", task(createdAt=AT - MINUTE))
    stubs.says(
        "ecs",
        "update_service",
        {},
        cluster=NAME,
        service=NAME,
        taskDefinition=NEW,
        desiredCount=1,
        forceNewDeployment=True,
    )
    begun = stubs.cloud.start_rollout(NAME, NAME, NEW, since=AT)
    assert (begun.previous, begun.since) == (NEW, AT)


@pytest.mark.parametrize("serving", [AT, AT + MINUTE])
def test_a_task_that_began_after_is_left_alone(stubs: Stubs, serving: datetime) -> None:
    """should start nothing: the second of two rollouts would replace what the first has made"""
    stubs.says("ecs", "describe_services", service(deployment(NEW, createdAt=AT), serves=NEW))
    tasks(stubs, "STOPPED")
    tasks(stubs, "RUNNING", task(createdAt=serving))
    stubs.cloud.start_rollout(NAME, NAME, NEW, since=AT)


@pytest.mark.parametrize(("began", "again"), [(AT + MINUTE, False), (AT - MINUTE, True)])
def test_a_replacement_on_its_way_is_waited_for(stubs: Stubs, began: datetime, again: bool) -> None:
    """should start no second deployment unless the one under way is from before, too"""
    under_way = deployment(NEW, "IN_PROGRESS", 0, createdAt=began)
    stubs.says("ecs", "describe_services", service(under_way, serves=NEW))
    tasks(stubs, "STOPPED")
    if again:
        tasks(stubs, "RUNNING", task(createdAt=AT - 2 * MINUTE))
        stubs.says("ecs", "update_service", {})
    stubs.cloud.start_rollout(NAME, NAME, NEW, since=AT)


def test_going_back_to_the_task_from_before_is_no_rollout(stubs: Stubs) -> None:
    """should not take ECS's return to the same revision for the new task"""
    stubs.says("ecs", "describe_services", service(deployment(NEW)))
    tasks(stubs, "STOPPED")
    tasks(stubs, "RUNNING", task(createdAt=AT - MINUTE))
    begun = Rollout(NAME, NAME, NEW, NEW, frozenset(), AT)
    with pytest.raises(PermanentError, match="kept the task from before"):
        stubs.cloud.await_rollout(
            begun, log_group="/gateway-lab/demo", deadline=60, log=lambda _: None
        )
