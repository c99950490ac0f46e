"""AWS, as this project uses it: one typed client over boto3, every vendor error translated.

Nothing here knows which cloud answers: region, endpoint and credentials come with the session and
the environment. Waiting is done through :mod:`lab.waiting`, so that tests own the clock.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from botocore.loaders import create_loader

from adapters.aws.denial import find_denial
from adapters.aws.user_agent import name_stage
from lab import names
from lab.durations import to_rfc3339
from lab.errors import InvalidInputError, LabError, PermanentError, TransientError
from lab.waiting import wait_for

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ecr import ECRClient
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_ecs.type_defs import DeploymentTypeDef, ServiceTypeDef, TaskTypeDef
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_sts import STSClient

Log = Callable[[str], None]

#: The capacity that a cluster's services may ask for.
CAPACITY = ("FARGATE", "FARGATE_SPOT")

_TRANSIENT_CODES = {
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "RequestTimeout",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "ServerException",
    "SlowDown",
    "OperationAborted",
}
_EXPIRED_CODES = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_BAD_CREDENTIAL_CODES = {
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "AuthFailure",
    "InvalidAccessKeyId",
}
#: Manifests of one image each; a list of several has no configuration of its own.
_MANIFESTS = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
]
_NO_OBJECT = {"NoSuchKey", "NoSuchBucket", "404"}
#: S3's answers to a conditional write that somebody else won.
_BEATEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
#: HEAD requests are refused without a word but their status.
_DENIED_CODES = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"}
_UP_AGAIN = "Bring the lab up again."
_UP_MENDS_IT = (
    "Bring the lab up again with lab-up, which mends the secret. Until then the task that runs "
    "serves on, and no other can start."
)
_SIGN_IN = "Sign in to AWS again (for example `aws sso login`) and run the command again."


@contextmanager
def told(doing: str) -> Iterator[None]:
    """Translate boto3's errors into the project's, saying what was being done."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        said = error.response.get("Error", {}).get("Message", "") or str(error)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        message = f"{doing}: {code}: {said}"
        if code in _EXPIRED_CODES:
            raise PermanentError(f"{doing}: the AWS credentials have expired", _SIGN_IN) from error
        if code in _BAD_CREDENTIAL_CODES:
            raise PermanentError(
                f"{doing}: AWS refuses the credentials: {said}", _SIGN_IN
            ) from error
        denial = find_denial(said, error.operation_name) if code in _DENIED_CODES else None
        if denial:
            raise PermanentError(
                f"{doing}: {denial} is not allowed: {code}: {said}", denial.hint
            ) from error
        if code in _TRANSIENT_CODES or status >= 500:
            raise TransientError(message, "It may pass: run the command again.") from error
        raise PermanentError(message, "Remove the cause and run the command again.") from error
    except (UnauthorizedSSOTokenError, TokenRetrievalError) as error:
        raise PermanentError(f"{doing}: the AWS sign-in has expired: {error}", _SIGN_IN) from error
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
        raise PermanentError(
            f"{doing}: no AWS credentials: {error}",
            "Sign in to AWS, name a profile in AWS_PROFILE, or fill the AWS Credentials block.",
        ) from error
    except ProfileNotFound as error:
        raise PermanentError(f"{doing}: {error}", "Name an existing profile.") from error
    except ParamValidationError as error:
        raise PermanentError(f"{doing}: {error}", "Remove the cause and try again.") from error
    except BotoCoreError as error:
        raise TransientError(f"{doing}: {error}", "Check the network and try again.") from error


@dataclass(frozen=True)
class RegistryLogin:
    """What Docker needs to push: short-lived, and never to be logged."""

    username: str
    password: str
    registry: str

    def __repr__(self) -> str:
        return f"RegistryLogin(registry={self.registry!r})"


@dataclass(frozen=True)
class HeldImage:
    """An image as the registry holds it: digest of its manifest, and of its configuration."""

    digest: str
    configuration: str


@dataclass(frozen=True)
class RunningTask:
    """The task that serves the lab: its ARN, address, and the digest of the image it runs."""

    arn: str
    address: str
    image_digest: str | None


@dataclass(frozen=True)
class Rollout:
    """A revision on its way out: what served before it, and which tasks had stopped before it."""

    cluster: str
    service: str
    task_definition: str
    previous: str | None
    stopped_before: frozenset[str]
    #: Tasks that began before this are to be replaced, also by the same revision.
    since: datetime | None = None


#: What botocore has read of AWS's descriptions of its services: half a second of every run that is
#: not forked from a process that has read them.
_DESCRIPTIONS = create_loader()
SERVICES = (
    "bedrock",
    "ec2",
    "ecr",
    "ecs",
    "iam",
    "logs",
    "s3",
    "scheduler",
    "secretsmanager",
    "stepfunctions",
    "sts",
)


def read_descriptions() -> None:
    """On return the descriptions of all services are in memory. Asks nobody for anything."""
    nobody = Cloud(boto3.Session("none", "none", region_name="us-east-1"))
    nobody.check_region()
    for service in SERVICES:
        nobody.client(service)


class Cloud:
    """Everything the project asks of AWS. May be shared between threads."""

    def __init__(self, session: boto3.Session, *, attempts: int = 5, timeout: float = 60) -> None:
        """``attempts`` and ``timeout`` (seconds) bound each call."""
        self._session = session
        # boto3 offers no way to give a session that it has made another loader.
        session._session.register_component("data_loader", _DESCRIPTIONS)
        self._making = threading.Lock()
        self._clients: dict[str, Any] = {}
        self._config = Config(
            retries={"mode": "standard", "max_attempts": attempts},
            connect_timeout=min(10, timeout),
            read_timeout=timeout,
            user_agent_extra=names.PROJECT,
        )

    def in_a_hurry(self) -> Cloud:
        """The same cloud, for calls whose answer is worth nothing after ten seconds."""
        return Cloud(self._session, attempts=2, timeout=5)

    def client(self, service: str) -> Any:
        """The boto3 client of ``service``, for adapters that ask what this one does not."""
        # A session makes clients one at a time; the clients themselves may be shared.
        with self._making, told(f"opening {service}"):
            if service not in self._clients:
                client: Any = self._session.client(cast(Any, service), config=self._config)
                client.meta.events.register("request-created", name_stage)
                self._clients[service] = client
            return self._clients[service]

    @cached_property
    def _sts(self) -> STSClient:
        return cast("STSClient", self.client("sts"))

    @cached_property
    def _s3(self) -> S3Client:
        return cast("S3Client", self.client("s3"))

    @cached_property
    def _ecr(self) -> ECRClient:
        return cast("ECRClient", self.client("ecr"))

    @cached_property
    def _ecs(self) -> ECSClient:
        return cast("ECSClient", self.client("ecs"))

    @cached_property
    def _ec2(self) -> EC2Client:
        return cast("EC2Client", self.client("ec2"))

    @cached_property
    def _logs(self) -> CloudWatchLogsClient:
        return cast("CloudWatchLogsClient", self.client("logs"))

    @cached_property
    def _secrets(self) -> SecretsManagerClient:
        return cast("SecretsManagerClient", self.client("secretsmanager"))

    # --- who and where -----------------------------------------------------------------------

    @property
    def region(self) -> str:
        """The session's region."""
        return self._session.region_name

    def check_region(self) -> None:
        """Raise InvalidInputError unless the region is one of AWS's; asks botocore's data only."""
        known = {
            region
            for partition in self._session.get_available_partitions()
            for region in self._session.get_available_regions("ecs", partition)
        }
        if self.region not in known:
            raise InvalidInputError(
                f"region {self.region!r} is not one that AWS offers ECS in",
                f"Set LAB_REGION to one of: {', '.join(sorted(known))}.",
            )

    def account(self) -> tuple[str, str]:
        """Account and partition that the credentials belong to; PermanentError if to none."""
        with told("asking AWS who we are"):
            caller = self._sts.get_caller_identity()
        return caller["Account"], caller["Arn"].split(":")[1]

    def environment(self) -> dict[str, str]:
        """What a child process needs to act as this session. Holds credentials: never log it."""
        with told("reading the AWS credentials"):
            credentials = self._session.get_credentials()
            if credentials is None:
                raise NoCredentialsError
            frozen = credentials.get_frozen_credentials()
        found = {
            "AWS_ACCESS_KEY_ID": frozen.access_key,
            "AWS_SECRET_ACCESS_KEY": frozen.secret_key,
            "AWS_SESSION_TOKEN": frozen.token,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
        }
        return {name: value for name, value in found.items() if value}

    # --- the state bucket --------------------------------------------------------------------

    def ensure_state_bucket(self, bucket: str) -> bool:
        """Make ``bucket`` if it is missing: versioned, encrypted, private. True if it was made.

        An existing bucket that we own is brought to the same settings. Safe to call at once from
        several places.
        """
        with told(f"making the state bucket {bucket}"):
            made = not self.has_bucket(bucket) and self._create_bucket(bucket)
            if made or not self._has_all_settings(bucket):
                self._s3.put_public_access_block(
                    Bucket=bucket,
                    PublicAccessBlockConfiguration={
                        "BlockPublicAcls": True,
                        "IgnorePublicAcls": True,
                        "BlockPublicPolicy": True,
                        "RestrictPublicBuckets": True,
                    },
                )
                self._s3.put_bucket_encryption(
                    Bucket=bucket,
                    ServerSideEncryptionConfiguration={
                        "Rules": [
                            {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
                        ]
                    },
                )
                self._s3.put_bucket_versioning(
                    Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
                )
                self._s3.put_bucket_lifecycle_configuration(
                    Bucket=bucket,
                    LifecycleConfiguration={
                        "Rules": [
                            {
                                "ID": "forget-old-versions",
                                "Status": "Enabled",
                                "Filter": {"Prefix": ""},
                                "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
                                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
                            }
                        ]
                    },
                )
                self._s3.put_bucket_tagging(
                    Bucket=bucket,
                    Tagging={"TagSet": [{"Key": names.TAG_PROJECT, "Value": names.PROJECT}]},
                )
        return made

    def _has_all_settings(self, bucket: str) -> bool:
        """Whether the tag is there: it is the last thing that is set."""
        try:
            tags = self._s3.get_bucket_tagging(Bucket=bucket)["TagSet"]
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchTagSet":
                return False
            raise
        return any(tag["Key"] == names.TAG_PROJECT for tag in tags)

    def has_bucket(self, bucket: str) -> bool:
        """Whether ``bucket`` exists and is ours."""
        with told(f"looking for the bucket {bucket}"):
            try:
                self._s3.head_bucket(Bucket=bucket)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                    return False
                raise
        return True

    def _create_bucket(self, bucket: str) -> bool:
        try:
            if self.region == "us-east-1":
                self._s3.create_bucket(Bucket=bucket)
            else:
                self._s3.create_bucket(
                    Bucket=bucket,
                    CreateBucketConfiguration=cast(Any, {"LocationConstraint": self.region}),
                )
        except ClientError as error:
            if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
                raise
        return True

    def put_record(self, bucket: str, key: str, record: Mapping[str, Any]) -> None:
        """Write ``record`` as JSON under ``key``, replacing what was there."""
        body = json.dumps(record, indent=2).encode()
        with told(f"writing s3://{bucket}/{key}"):
            self._s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/json")

    def get_record(self, bucket: str, key: str) -> dict[str, Any] | None:
        """The JSON under ``key``, or ``None`` where neither object nor bucket exists."""
        found = self.read_object(bucket, key)
        return cast("dict[str, Any]", json.loads(found[0])) if found else None

    def read_object(self, bucket: str, key: str) -> tuple[bytes, str] | None:
        """The object's bytes and ETag, or ``None`` where there is none."""
        with told(f"reading s3://{bucket}/{key}"):
            try:
                found = self._s3.get_object(Bucket=bucket, Key=key)
                return found["Body"].read(), found["ETag"]
            except ClientError as error:
                if error.response["Error"]["Code"] in _NO_OBJECT:
                    return None
                raise

    def object_version(self, bucket: str, key: str) -> str | None:
        """The object's ETag, or ``None`` where there is none."""
        with told(f"looking at s3://{bucket}/{key}"):
            try:
                return self._s3.head_object(Bucket=bucket, Key=key)["ETag"]
            except ClientError as error:
                if error.response["Error"]["Code"] in {*_NO_OBJECT, "404"}:
                    return None
                raise

    def write_object(self, bucket: str, key: str, body: bytes, replacing: str | None) -> str | None:
        """Write the object if its ETag is still ``replacing`` (``None``: if there is none).

        Returns the new ETag, or ``None`` if somebody else was first.
        """
        condition: Any = {"IfMatch": replacing} if replacing else {"IfNoneMatch": "*"}
        with told(f"writing s3://{bucket}/{key}"):
            try:
                return self._s3.put_object(Bucket=bucket, Key=key, Body=body, **condition)["ETag"]
            except ClientError as error:
                if error.response["Error"]["Code"] in _BEATEN | _NO_OBJECT:
                    return None
                raise

    def forget_object(self, bucket: str, key: str) -> None:
        """On return there is no such object; its older versions are still there."""
        with told(f"deleting s3://{bucket}/{key}"):
            self._s3.delete_object(Bucket=bucket, Key=key)

    def list_labs(self, bucket: str) -> list[str]:
        """Every lab that has anything in the state bucket, by name."""
        with told(f"listing s3://{bucket}"):
            try:
                pages = self._s3.get_paginator("list_objects_v2").paginate(
                    Bucket=bucket, Prefix="labs/", Delimiter="/"
                )
                prefixes = [p["Prefix"] for page in pages for p in page.get("CommonPrefixes", [])]
            except ClientError as error:
                if error.response["Error"]["Code"] in _NO_OBJECT:
                    return []
                raise
        return sorted(prefix.split("/")[1] for prefix in prefixes)

    def delete_prefix(self, bucket: str, prefix: str) -> None:
        """Delete every version of every object under ``prefix``. Nothing there is success."""
        with told(f"emptying s3://{bucket}/{prefix}"):
            try:
                pages = self._s3.get_paginator("list_object_versions").paginate(
                    Bucket=bucket, Prefix=prefix
                )
                for page in pages:
                    found = [
                        {"Key": entry["Key"], "VersionId": entry["VersionId"]}
                        for entry in (*page.get("Versions", []), *page.get("DeleteMarkers", []))
                    ]
                    if found:
                        self._s3.delete_objects(
                            Bucket=bucket, Delete=cast(Any, {"Objects": found, "Quiet": True})
                        )
            except ClientError as error:
                if error.response["Error"]["Code"] not in _NO_OBJECT:
                    raise

    def delete_bucket(self, bucket: str) -> None:
        """Delete ``bucket`` with everything in it. Nothing there is success."""
        self.delete_prefix(bucket, "")
        with told(f"deleting the bucket {bucket}"):
            try:
                self._s3.delete_bucket(Bucket=bucket)
            except ClientError as error:
                if error.response["Error"]["Code"] not in _NO_OBJECT:
                    raise

    def object_versions(self, bucket: str, key: str) -> list[str]:
        """The versions of the object before the present one, newest first."""
        with told(f"listing the versions of s3://{bucket}/{key}"):
            pages = self._s3.get_paginator("list_object_versions").paginate(
                Bucket=bucket, Prefix=key
            )
            return [
                version["VersionId"]
                for page in pages
                for version in page.get("Versions", [])
                if version["Key"] == key and not version["IsLatest"]
            ]

    def read_version(self, bucket: str, key: str, version: str) -> bytes:
        """An earlier version of the object; empty where it is gone by now."""
        with told(f"reading a version of s3://{bucket}/{key}"):
            try:
                return self._s3.get_object(Bucket=bucket, Key=key, VersionId=version)["Body"].read()
            except ClientError as error:
                if error.response["Error"]["Code"] in {*_NO_OBJECT, "NoSuchVersion"}:
                    return b""
                raise

    # --- the registry ------------------------------------------------------------------------

    def has_repository(self, repository: str) -> bool:
        """Whether the registry has ``repository``."""
        with told(f"looking for the repository {repository}"):
            try:
                self._ecr.describe_repositories(repositoryNames=[repository])
            except self._ecr.exceptions.RepositoryNotFoundException:
                return False
        return True

    def image_digest(self, repository: str, tag: str) -> str | None:
        """The digest of ``repository:tag``, or ``None`` where it was never pushed."""
        with told(f"looking for {repository}:{tag}"):
            try:
                found = self._ecr.describe_images(
                    repositoryName=repository, imageIds=[{"imageTag": tag}]
                )["imageDetails"]
            except (
                self._ecr.exceptions.ImageNotFoundException,
                self._ecr.exceptions.RepositoryNotFoundException,
            ):
                return None
        return found[0]["imageDigest"] if found else None

    def held_image(self, repository: str, tag: str) -> HeldImage | None:
        """What the registry gives out for ``repository:tag``, or ``None`` where it holds none.

        The digest is computed from the manifest itself; PermanentError if the registry names
        another.
        """
        found = self._manifest(repository, {"imageTag": tag}, tag)
        if found is None:
            return None
        digest, manifest = found
        return HeldImage(digest, str(manifest.get("config", {}).get("digest", "")))

    def image_manifest(self, repository: str, digest: str) -> dict[str, Any]:
        """The manifest of the image with ``digest``; PermanentError where the registry has none."""
        found = self._manifest(repository, {"imageDigest": digest}, digest)
        if found is None:
            raise PermanentError(f"the registry holds no {repository}@{digest}", _UP_AGAIN)
        return found[1]

    def _manifest(
        self, repository: str, image: Any, called: str
    ) -> tuple[str, dict[str, Any]] | None:
        with told(f"reading the manifest of {repository}:{called}"):
            try:
                images = self._ecr.batch_get_image(
                    repositoryName=repository, imageIds=[image], acceptedMediaTypes=_MANIFESTS
                )["images"]
            except self._ecr.exceptions.RepositoryNotFoundException:
                return None
        if not images:
            return None
        manifest, named = images[0]["imageManifest"], images[0]["imageId"]["imageDigest"]
        digest = f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}"
        if digest != named:
            raise PermanentError(
                f"the registry names {named} for {repository}:{called}, but gives out {digest}",
                "Do not run it. Remove the image from the registry and bring the lab up again.",
            )
        return digest, json.loads(manifest)

    def blob_url(self, repository: str, digest: str) -> str:
        """Where a layer or a configuration can be fetched for a while. Bears a right: never log."""
        with told(f"asking for {digest} of {repository}"):
            return self._ecr.get_download_url_for_layer(
                repositoryName=repository, layerDigest=digest
            )["downloadUrl"]

    def registry_login(self) -> RegistryLogin:
        """A login for the account's registry, valid for twelve hours."""
        with told("logging in to the registry"):
            data = self._ecr.get_authorization_token()["authorizationData"][0]
        username, password = base64.b64decode(data["authorizationToken"]).decode().split(":", 1)
        return RegistryLogin(username, password, data["proxyEndpoint"])

    # --- the service -------------------------------------------------------------------------

    def gateway_key(self, secret: str) -> str:
        """The gateway's key. Never to be logged or stored.

        Raises PermanentError, with the way to another one, where somebody has deleted it.
        """
        errors = self._secrets.exceptions
        with told(f"reading the secret {secret}"):
            try:
                return self._secrets.get_secret_value(SecretId=secret)["SecretString"]
            except errors.ResourceNotFoundException as error:
                raise PermanentError(
                    f"the secret {secret} is gone, or has no value", _UP_MENDS_IT
                ) from error
            except errors.InvalidRequestException as error:
                if "deletion" not in str(error):
                    raise
                raise PermanentError(
                    f"the secret {secret} waits for its deletion, and cannot be read",
                    _UP_MENDS_IT,
                ) from error

    def key_before(self, secret: str) -> str | None:
        """The key before the present one, if there is one. Never to be logged or stored."""
        with told(f"reading the secret {secret}"):
            try:
                found = self._secrets.get_secret_value(SecretId=secret, VersionStage="AWSPREVIOUS")
            except self._secrets.exceptions.ResourceNotFoundException:
                return None
        # A secret may begin with a version that has no value.
        return found.get("SecretString")

    def key_written(self, secret: str) -> datetime | None:
        """When the present key was written; ``None`` where there is none."""
        with told(f"reading the versions of the secret {secret}"):
            try:
                # Only versions with a label are told of, and there are few labels.
                versions = self._secrets.list_secret_version_ids(SecretId=secret)["Versions"]
            except self._secrets.exceptions.ResourceNotFoundException:
                return None
        return next(
            (v["CreatedDate"] for v in versions if "AWSCURRENT" in v.get("VersionStages", [])), None
        )

    def find_secret(self, secret: str) -> str | None:
        """The secret's value, ``None`` where it or its value is missing. Never to be logged."""
        with told(f"reading the secret {secret}"):
            try:
                return self._secrets.get_secret_value(SecretId=secret)["SecretString"]
            except self._secrets.exceptions.ResourceNotFoundException:
                return None

    def keep_secret(self, secret: str) -> bool:
        """Take ``secret`` back if it waits for its deletion; True if it did.

        Until then it can neither be read nor be made anew under its name.
        """
        with told(f"looking for the secret {secret}"):
            try:
                found = self._secrets.describe_secret(SecretId=secret)
            except self._secrets.exceptions.ResourceNotFoundException:
                return False
            if "DeletedDate" not in found:
                return False
            self._secrets.restore_secret(SecretId=secret)
        return True

    def ensure_cluster(self, name: str, tags: Mapping[str, str]) -> bool:
        """On return the cluster is there, with Fargate's capacity; whether it was made now.

        Tags and capacity of one that was there stay as they are. May be called again.
        """
        with told(f"making the cluster {name}"):
            for found in self._ecs.describe_clusters(clusters=[name])["clusters"]:
                if found["status"] == "ACTIVE":
                    return False
            self._ecs.create_cluster(
                clusterName=name,
                capacityProviders=list(CAPACITY),
                settings=[{"name": "containerInsights", "value": "disabled"}],
                tags=[{"key": key, "value": value} for key, value in tags.items()],
            )
        return True

    def service(self, cluster: str, service: str) -> ServiceTypeDef | None:
        """The ECS service, or ``None`` where it does not exist or is being deleted."""
        with told(f"describing the service {service}"):
            try:
                found = self._ecs.describe_services(cluster=cluster, services=[service])
            except self._ecs.exceptions.ClusterNotFoundException:
                return None
        return next((s for s in found["services"] if s["status"] == "ACTIVE"), None)

    def serves_from_before(self, cluster: str, service: str, moment: datetime) -> bool:
        """Whether the newest running task of ``service`` began before ``moment``.

        False where none runs.
        """
        began = [
            task["createdAt"]
            for task in self._tasks(cluster, service, "RUNNING")
            if task.get("lastStatus") == "RUNNING"
        ]
        return bool(began) and max(began) < moment

    def start_rollout(
        self,
        cluster: str,
        service: str,
        task_definition: str,
        *,
        since: datetime | None = None,
        image_digest: str | None = None,
    ) -> Rollout:
        """Point ``service`` at ``task_definition`` with one task, begun after ``since`` if given.

        Called again for a revision that is out already, this starts nothing, unless what runs of
        it is another image than ``image_digest``: one whose tag was pushed anew since.
        """
        before = self.service(cluster, service)
        if before is None:
            raise PermanentError(f"the service {service} is gone", _UP_AGAIN)
        stopped = frozenset(t["taskArn"] for t in self._tasks(cluster, service, "STOPPED"))
        running = self.running_task(cluster, service, task_definition) if image_digest else None
        other_image = running is not None and running.image_digest != image_digest
        with told(f"rolling out {task_definition}"):
            another = (
                before["taskDefinition"] != task_definition
                or before["desiredCount"] != 1
                or other_image
            )
            too_old = not another and self._is_too_old(cluster, service, before, since)
            if another or too_old:
                self._ecs.update_service(
                    cluster=cluster,
                    service=service,
                    taskDefinition=task_definition,
                    desiredCount=1,
                    # Neither scaling nor the same revision makes a deployment by itself, and so
                    # no state to wait for and no circuit breaker.
                    forceNewDeployment=before["desiredCount"] == 0 or too_old or other_image,
                )
        served = [
            d["taskDefinition"]
            for d in before["deployments"]
            if d.get("rolloutState") == "COMPLETED" and d.get("runningCount", 0) > 0
        ]
        previous = served[0] if served else None
        return Rollout(cluster, service, task_definition, previous, stopped, since)

    def _is_too_old(
        self, cluster: str, service: str, now: ServiceTypeDef, since: datetime | None
    ) -> bool:
        """Whether what serves began before ``since`` and no replacement is on its way."""
        if since is None:
            return False
        on_its_way = any(
            d["status"] == "PRIMARY"
            and d.get("rolloutState") == "IN_PROGRESS"
            and d["createdAt"] >= since
            for d in now["deployments"]
        )
        return not on_its_way and self.serves_from_before(cluster, service, since)

    def abandon_rollout(self, rollout: Rollout) -> None:
        """End the crash loop of a failed rollout before which nothing served.

        Where something did, nothing is done: ECS's circuit breaker goes back to it and keeps its
        task, and with it the address that callers have; another update would replace the task.
        """
        if rollout.previous is None:
            self.stop_service(rollout.cluster, rollout.service)

    def stop_service(self, cluster: str, service: str) -> None:
        """Take ``service`` to no task. Safe to call again."""
        with told(f"stopping {service}"):
            self._ecs.update_service(cluster=cluster, service=service, desiredCount=0)

    def await_rollout(
        self, rollout: Rollout, *, log_group: str, deadline: float, log: Log
    ) -> RunningTask:
        """Wait until the deployment is complete; return the task that serves.

        Raises PermanentError as soon as a task of it failed, with ECS's reason, the exit code and
        the container's last words.
        """
        said: set[str] = set()

        def check() -> RunningTask | None:
            current = self.service(rollout.cluster, rollout.service)
            if current is None:
                raise PermanentError(f"the service {rollout.service} is gone", _UP_AGAIN)
            for event in reversed(current.get("events", [])[:5]):
                if event["id"] not in said:
                    said.add(event["id"])
                    log(f"ecs: {event['message']}")
            deployment = _deployment_of(current, rollout.task_definition)
            self._raise_if_failed(rollout, deployment, log_group)
            if deployment is None:
                raise PermanentError(
                    f"ECS no longer deploys {rollout.task_definition.rsplit('/', 1)[-1]}",
                    "Another run may have changed the service; run the command again.",
                )
            if deployment.get("rolloutState") != "COMPLETED":
                return None
            if rollout.since and self.serves_from_before(
                rollout.cluster, rollout.service, rollout.since
            ):
                # Going back to the same revision looks like a rollout of it.
                raise PermanentError(
                    f"ECS gave the rollout of {rollout.service} up and kept the task from before",
                    "Look at the service's events in the ECS console.",
                )
            return self.running_task(rollout.cluster, rollout.service, rollout.task_definition)

        return wait_for(
            f"the rollout of {rollout.service}",
            check,
            deadline=deadline,
            log=log,
            longest_pause=2.0,
        )

    def raise_if_failed(self, rollout: Rollout, log_group: str) -> None:
        """Raise PermanentError if a task of the rollout failed since it began."""
        current = self.service(rollout.cluster, rollout.service)
        deployment = _deployment_of(current, rollout.task_definition) if current else None
        self._raise_if_failed(rollout, deployment, log_group)

    def running_task(
        self, cluster: str, service: str, task_definition: str | None = None
    ) -> RunningTask | None:
        """The newest running task of ``service``, of ``task_definition`` if given; else ``None``.

        On AWS the address is the public one of the task's network interface; where an attachment
        names no interface, it is the attachment's own address.
        """
        running = [
            task
            for task in self._tasks(cluster, service, "RUNNING")
            if task.get("lastStatus") == "RUNNING"
            and task_definition in (None, task["taskDefinitionArn"])
        ]
        for task in sorted(running, key=lambda t: t["createdAt"], reverse=True):
            address = self._task_address(task)
            if address:
                digest = task["containers"][0].get("imageDigest")
                return RunningTask(task["taskArn"], address, digest)
        return None

    def _tasks(self, cluster: str, service: str, status: Any) -> list[TaskTypeDef]:
        with told(f"listing the tasks of {service}"):
            arns = self._ecs.list_tasks(cluster=cluster, serviceName=service, desiredStatus=status)[
                "taskArns"
            ]
            if not arns:
                return []
            return self._ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"]

    def _task_address(self, task: TaskTypeDef) -> str | None:
        details = {
            detail["name"]: detail["value"]
            for attachment in task.get("attachments", [])
            for detail in attachment.get("details", [])
            if "name" in detail and "value" in detail
        }
        interface = details.get("networkInterfaceId")
        if interface is None:
            return details.get("privateIPv4Address")
        with told(f"describing the network interface {interface}"):
            found = self._ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])
        return found["NetworkInterfaces"][0].get("Association", {}).get("PublicIp")

    def _raise_if_failed(
        self, rollout: Rollout, deployment: DeploymentTypeDef | None, log_group: str
    ) -> None:
        failed = [
            task
            for task in self._tasks(rollout.cluster, rollout.service, "STOPPED")
            if task["taskDefinitionArn"] == rollout.task_definition
            and task["taskArn"] not in rollout.stopped_before
            and _failed_by_itself(task)
        ]
        if failed:
            task = max(failed, key=lambda t: t["createdAt"])
            raise PermanentError(
                f"the new task failed: {_why_stopped(task)}"
                + self.last_words(log_group, task["taskArn"]),
                "The container's own words above tell why it did not start.",
            )
        if deployment and deployment.get("rolloutState") == "FAILED":
            raise PermanentError(
                f"ECS gave the rollout up: {deployment.get('rolloutStateReason', 'unsaid')}",
                "Look at the service's events in the ECS console.",
            )

    def last_words(self, log_group: str, task_arn: str, lines: int = 15) -> str:
        """The end of the log of the task's container, as text for an error message."""
        task_id = task_arn.rsplit("/", 1)[-1]
        try:
            with told("reading the container's log"):
                events = self._logs.get_log_events(
                    logGroupName=log_group,
                    logStreamName=f"{names.CONTAINER}/{names.CONTAINER}/{task_id}",
                    limit=lines,
                    startFromHead=False,
                )["events"]
        except LabError as error:
            if isinstance(error.__cause__, self._logs.exceptions.ResourceNotFoundException):
                return "\n  (the container wrote no log)"
            return f"\n  (what the container wrote cannot be read: {error.message})"
        said = "\n".join(f"  | {event['message'].rstrip()}" for event in events[-lines:])
        return f"\nIts last words:\n{said}"

    # --- its end -----------------------------------------------------------------------------

    def move_stop(self, lab: str, at: datetime) -> bool:
        """Move the schedule that stops the lab's service to ``at``; False if there is none."""
        scheduler = self.client("scheduler")
        name, group = names.STOP_SCHEDULE, names.resource_name(lab)
        with told(f"moving the stop of {lab}"):
            try:
                known = scheduler.get_schedule(Name=name, GroupName=group)
            except scheduler.exceptions.ResourceNotFoundException:
                return False
            # An update replaces the whole schedule: what is not given again is gone.
            told_only = {"ResponseMetadata", "Arn", "CreationDate", "LastModificationDate"}
            kept = {key: value for key, value in known.items() if key not in told_only}
            kept["ScheduleExpression"] = f"at({at.astimezone(UTC):%Y-%m-%dT%H:%M:%S})"
            scheduler.update_schedule(**kept)
        return True

    def tag_end(self, lab: str, at: datetime) -> None:
        """Write the lab's end into its cluster's tag; a lab without a cluster has none."""
        with told(f"tagging the end of {lab}"):
            found = self._ecs.describe_clusters(clusters=[names.resource_name(lab)])["clusters"]
            for cluster in found:
                if cluster["status"] == "ACTIVE":
                    self._ecs.tag_resource(
                        resourceArn=cluster["clusterArn"],
                        tags=[{"key": names.TAG_EXPIRES_AT, "value": to_rfc3339(at)}],
                    )

    def end_tag(self, lab: str) -> datetime | None:
        """The end that the lab's cluster is tagged with, if there is such a cluster and tag."""
        with told(f"reading the tags of {lab}"):
            found = self._ecs.describe_clusters(
                clusters=[names.resource_name(lab)], include=["TAGS"]
            )["clusters"]
        for cluster in found:
            for tag in cluster.get("tags", []):
                if tag.get("key") == names.TAG_EXPIRES_AT and cluster["status"] == "ACTIVE":
                    return datetime.fromisoformat(tag["value"])
        return None

    def allowed_cidrs(self, lab: str) -> list[str]:
        """The hosts that the lab's firewall lets in now."""
        with told(f"reading the firewall of {lab}"):
            groups = self._ec2.describe_security_groups(
                Filters=[
                    {"Name": f"tag:{names.TAG_LAB}", "Values": [lab]},
                    {"Name": "group-name", "Values": [names.resource_name(lab)]},
                ]
            )["SecurityGroups"]
        return sorted(
            entry["CidrIp"]
            for group in groups
            for rule in group["IpPermissions"]
            for entry in rule["IpRanges"]
        )

    # --- what is left ------------------------------------------------------------------------

    def forget_task_definitions(self, family: str) -> int:
        """Deregister and delete every revision of ``family``; return how many there were."""
        with told(f"removing the task definitions of {family}"):
            arns = [
                arn
                for status in ("ACTIVE", "INACTIVE")
                for page in self._ecs.get_paginator("list_task_definitions").paginate(
                    familyPrefix=family, status=cast(Any, status)
                )
                for arn in page["taskDefinitionArns"]
                if arn.rsplit("/", 1)[-1].rsplit(":", 1)[0] == family
            ]
            for arn in arns:
                self._ecs.deregister_task_definition(taskDefinition=arn)
            for start in range(0, len(arns), 10):
                self._ecs.delete_task_definitions(taskDefinitions=arns[start : start + 10])
        return len(arns)


def _deployment_of(service: ServiceTypeDef, task_definition: str) -> DeploymentTypeDef | None:
    """The newest deployment of ``task_definition``: the primary one where there are several."""
    found = [d for d in service["deployments"] if d["taskDefinition"] == task_definition]
    return min(found, key=lambda d: d["status"] != "PRIMARY", default=None)


def _failed_by_itself(task: TaskTypeDef) -> bool:
    """Whether a stopped task would fail again, as opposed to having been replaced or reclaimed."""
    return task.get("stopCode") in {"EssentialContainerExited", "TaskFailedToStart"}


def _why_stopped(task: TaskTypeDef) -> str:
    reasons = [task.get("stoppedReason", "ECS told no reason")]
    for container in task["containers"]:
        if "exitCode" in container:
            reasons.append(f"container {container['name']} exited with {container['exitCode']}")
        if container.get("reason"):
            reasons.append(container["reason"])
    return "; ".join(reasons)
