"""The state bucket: Terraform's states, the labs' records, and the leases of runs.

Its objects outlive every machine, and are read and written by key only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import ClientError

from adapters.aws.errors import translate_aws_errors
from adapters.aws.session import Cloud
from lab import names

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_NO_OBJECT = {"NoSuchKey", "NoSuchBucket", "404"}
#: S3's answers to a conditional write that somebody else won.
_BEATEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


class StateBucket:
    """The bucket ``name``. May be shared between threads."""

    def __init__(self, cloud: Cloud, name: str) -> None:
        """``cloud`` holds the bucket, which need not exist yet."""
        self.name = name
        self._cloud = cloud

    @property
    def _s3(self) -> S3Client:
        return cast("S3Client", self._cloud.client("s3"))

    def ensure(self) -> bool:
        """Make the bucket if it is missing: versioned, encrypted, private. True if it was made.

        An existing bucket of this account gets the same settings. Safe to call from several places
        at once.
        """
        with translate_aws_errors(f"making the state bucket {self.name}"):
            made = not self.exists() and self._create()
            if made or not self._has_all_settings():
                self._s3.put_public_access_block(
                    Bucket=self.name,
                    PublicAccessBlockConfiguration={
                        "BlockPublicAcls": True,
                        "IgnorePublicAcls": True,
                        "BlockPublicPolicy": True,
                        "RestrictPublicBuckets": True,
                    },
                )
                self._s3.put_bucket_encryption(
                    Bucket=self.name,
                    ServerSideEncryptionConfiguration={
                        "Rules": [
                            {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
                        ]
                    },
                )
                self._s3.put_bucket_versioning(
                    Bucket=self.name, VersioningConfiguration={"Status": "Enabled"}
                )
                self._s3.put_bucket_lifecycle_configuration(
                    Bucket=self.name,
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
                    Bucket=self.name,
                    Tagging={"TagSet": [{"Key": names.TAG_PROJECT, "Value": names.PROJECT}]},
                )
        return made

    def _has_all_settings(self) -> bool:
        """Whether the tag is there: it is set last."""
        try:
            tags = self._s3.get_bucket_tagging(Bucket=self.name)["TagSet"]
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchTagSet":
                return False
            raise
        return any(tag["Key"] == names.TAG_PROJECT for tag in tags)

    def exists(self) -> bool:
        """Whether the bucket exists and belongs to this account."""
        with translate_aws_errors(f"looking for the bucket {self.name}"):
            try:
                self._s3.head_bucket(Bucket=self.name)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                    return False
                raise
        return True

    def _create(self) -> bool:
        try:
            if self._cloud.region == "us-east-1":
                self._s3.create_bucket(Bucket=self.name)
            else:
                self._s3.create_bucket(
                    Bucket=self.name,
                    CreateBucketConfiguration=cast(Any, {"LocationConstraint": self._cloud.region}),
                )
        except ClientError as error:
            if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
                raise
        return True

    def write_json(self, key: str, record: Mapping[str, Any]) -> None:
        """Write ``record`` as JSON under ``key``, replacing what was there."""
        body = json.dumps(record, indent=2).encode()
        with translate_aws_errors(f"writing s3://{self.name}/{key}"):
            self._s3.put_object(
                Bucket=self.name, Key=key, Body=body, ContentType="application/json"
            )

    def read_json(self, key: str) -> dict[str, Any] | None:
        """The JSON under ``key``, or ``None`` where neither object nor bucket exists."""
        found = self.read(key)
        return cast("dict[str, Any]", json.loads(found[0])) if found else None

    def read(self, key: str) -> tuple[bytes, str] | None:
        """The object's bytes and ETag, or ``None`` where there is none."""
        with translate_aws_errors(f"reading s3://{self.name}/{key}"):
            try:
                found = self._s3.get_object(Bucket=self.name, Key=key)
                return found["Body"].read(), found["ETag"]
            except ClientError as error:
                if error.response["Error"]["Code"] in _NO_OBJECT:
                    return None
                raise

    def etag(self, key: str) -> str | None:
        """The object's ETag, or ``None`` where there is none."""
        with translate_aws_errors(f"looking at s3://{self.name}/{key}"):
            try:
                return self._s3.head_object(Bucket=self.name, Key=key)["ETag"]
            except ClientError as error:
                if error.response["Error"]["Code"] in {*_NO_OBJECT, "404"}:
                    return None
                raise

    def write(self, key: str, body: bytes, replacing: str | None) -> str | None:
        """Write the object if its ETag is still ``replacing`` (``None``: if there is none).

        Returns the new ETag, or ``None`` if somebody else was first.
        """
        condition: Any = {"IfMatch": replacing} if replacing else {"IfNoneMatch": "*"}
        with translate_aws_errors(f"writing s3://{self.name}/{key}"):
            try:
                return self._s3.put_object(Bucket=self.name, Key=key, Body=body, **condition)[
                    "ETag"
                ]
            except ClientError as error:
                if error.response["Error"]["Code"] in _BEATEN | _NO_OBJECT:
                    return None
                raise

    def remove(self, key: str) -> None:
        """On return there is no such object; its older versions are still there."""
        with translate_aws_errors(f"deleting s3://{self.name}/{key}"):
            self._s3.delete_object(Bucket=self.name, Key=key)

    def list_labs(self) -> list[str]:
        """Every lab that has anything in the state bucket, by name."""
        with translate_aws_errors(f"listing s3://{self.name}"):
            try:
                pages = self._s3.get_paginator("list_objects_v2").paginate(
                    Bucket=self.name, Prefix="labs/", Delimiter="/"
                )
                prefixes = [p["Prefix"] for page in pages for p in page.get("CommonPrefixes", [])]
            except ClientError as error:
                if error.response["Error"]["Code"] in _NO_OBJECT:
                    return []
                raise
        return sorted(prefix.split("/")[1] for prefix in prefixes)

    def delete_prefix(self, prefix: str) -> None:
        """Delete every version of every object under ``prefix``; success if there is none."""
        with translate_aws_errors(f"emptying s3://{self.name}/{prefix}"):
            try:
                pages = self._s3.get_paginator("list_object_versions").paginate(
                    Bucket=self.name, Prefix=prefix
                )
                for page in pages:
                    found = [
                        {"Key": entry["Key"], "VersionId": entry["VersionId"]}
                        for entry in (*page.get("Versions", []), *page.get("DeleteMarkers", []))
                    ]
                    if found:
                        self._s3.delete_objects(
                            Bucket=self.name, Delete=cast(Any, {"Objects": found, "Quiet": True})
                        )
            except ClientError as error:
                if error.response["Error"]["Code"] not in _NO_OBJECT:
                    raise

    def delete(self) -> None:
        """Delete the bucket with everything in it; success if there is none."""
        self.delete_prefix("")
        with translate_aws_errors(f"deleting the bucket {self.name}"):
            try:
                self._s3.delete_bucket(Bucket=self.name)
            except ClientError as error:
                if error.response["Error"]["Code"] not in _NO_OBJECT:
                    raise

    def earlier_versions(self, key: str) -> list[str]:
        """The versions of the object before the present one, newest first."""
        with translate_aws_errors(f"listing the versions of s3://{self.name}/{key}"):
            pages = self._s3.get_paginator("list_object_versions").paginate(
                Bucket=self.name, Prefix=key
            )
            return [
                version["VersionId"]
                for page in pages
                for version in page.get("Versions", [])
                if version["Key"] == key and not version["IsLatest"]
            ]

    def read_version(self, key: str, version: str) -> bytes:
        """An earlier version of the object; empty where it is gone by now."""
        with translate_aws_errors(f"reading a version of s3://{self.name}/{key}"):
            try:
                return self._s3.get_object(Bucket=self.name, Key=key, VersionId=version)[
                    "Body"
                ].read()
            except ClientError as error:
                if error.response["Error"]["Code"] in {*_NO_OBJECT, "NoSuchVersion"}:
                    return b""
                raise
