"""The state bucket is made safe once, and its objects change only under the given condition.

A failed read or write is never taken for a missing object.
"""

from __future__ import annotations

import io
from typing import Any

import pytest
from botocore.response import StreamingBody
from botocore.stub import ANY

from adapters.aws.bucket import StateBucket
from lab.errors import PermanentError, TransientError
from tests.unit.adapters.aws.stubs import Stubs


@pytest.fixture
def bucket(stubs: Stubs) -> StateBucket:
    return StateBucket(stubs.cloud, "b")


def expect_settings(stubs: Stubs) -> None:
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
def test_makes_a_missing_state_bucket(
    stubs: Stubs, bucket: StateBucket, expected: dict[str, Any], raced: bool
) -> None:
    """should be in its region, private, encrypted and versioned, even if another up makes it too"""
    stubs.fails("s3", "head_bucket", "404", 404)
    if raced:
        stubs.fails("s3", "create_bucket", "BucketAlreadyOwnedByYou", 409)
    else:
        stubs.says("s3", "create_bucket", {}, **expected)
    expect_settings(stubs)
    assert bucket.ensure() is True


@pytest.mark.parametrize("tagged", [None, []])
def test_brings_an_existing_bucket_to_the_same_settings(
    stubs: Stubs, bucket: StateBucket, tagged: list[dict[str, str]] | None
) -> None:
    """should also secure a bucket that an interrupted up had only created"""
    stubs.says("s3", "head_bucket", {}, Bucket="b")
    if tagged is None:
        stubs.fails("s3", "get_bucket_tagging", "NoSuchTagSet", 404)
    else:
        stubs.says("s3", "get_bucket_tagging", {"TagSet": tagged}, Bucket="b")
    expect_settings(stubs)
    assert bucket.ensure() is False


def test_a_settled_bucket_is_left_alone(stubs: Stubs, bucket: StateBucket) -> None:
    """should change nothing in a bucket that has the last setting, the tag"""
    stubs.says("s3", "head_bucket", {}, Bucket="b")
    tags = [{"Key": "lab:project", "Value": "gateway-lab"}]
    stubs.says("s3", "get_bucket_tagging", {"TagSet": tags}, Bucket="b")
    assert bucket.ensure() is False


def test_somebody_elses_bucket_is_refused(stubs: Stubs, bucket: StateBucket) -> None:
    """should change nothing in a bucket that is not ours"""
    stubs.fails("s3", "head_bucket", "403", 403)
    with pytest.raises(PermanentError, match="the bucket b: s3:ListBucket is not allowed: 403"):
        bucket.ensure()


@pytest.mark.parametrize(
    ("replacing", "condition"), [(None, {"IfNoneMatch": "*"}), ('"e1"', {"IfMatch": '"e1"'})]
)
def test_an_object_is_written_on_its_condition(
    stubs: Stubs, bucket: StateBucket, replacing: str | None, condition: dict[str, str]
) -> None:
    """should write only if nobody else has written meanwhile, and return the new ETag"""
    stubs.says("s3", "put_object", {"ETag": '"e2"'}, Bucket="b", Key="k", Body=b"x", **condition)
    assert bucket.write("k", b"x", replacing) == '"e2"'


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
def test_a_write_after_another_is_no_error(
    stubs: Stubs, bucket: StateBucket, code: str, status: int
) -> None:
    """should return None if somebody else wrote or removed the object first"""
    stubs.fails("s3", "put_object", code, status)
    assert bucket.write("k", b"x", '"e1"') is None


def test_a_failed_write_is_an_error(stubs: Stubs, bucket: StateBucket) -> None:
    """should raise: a run that believes that another wrote first gives up its own lease"""
    stubs.fails("s3", "put_object", "SlowDown", 503)
    with pytest.raises(TransientError, match="writing s3://b/k"):
        bucket.write("k", b"x", '"e1"')


def test_an_object_is_read_with_its_etag(stubs: Stubs, bucket: StateBucket) -> None:
    """should return what the next write needs"""
    body = StreamingBody(io.BytesIO(b"text"), 4)
    stubs.says("s3", "get_object", {"Body": body, "ETag": '"e1"'}, Bucket="b", Key="k")
    assert bucket.read("k") == (b"text", '"e1"')


@pytest.mark.parametrize("code", ["NoSuchKey", "NoSuchBucket"])
def test_a_missing_object_is_none(stubs: Stubs, bucket: StateBucket, code: str) -> None:
    """should be None where the object or the bucket does not exist"""
    stubs.fails("s3", "get_object", code, 404)
    assert bucket.read("k") is None


def test_only_versions_of_the_object_are_listed(stubs: Stubs, bucket: StateBucket) -> None:
    """should leave out the current one, and objects whose names only begin the same"""
    versions = [
        {"Key": "labs/demo/terraform.tfstate", "VersionId": "3", "IsLatest": True},
        {"Key": "labs/demo/terraform.tfstate", "VersionId": "2", "IsLatest": False},
        {"Key": "labs/demo/terraform.tfstate.tflock", "VersionId": "1", "IsLatest": False},
    ]
    stubs.says("s3", "list_object_versions", {"Versions": versions})
    assert bucket.earlier_versions("labs/demo/terraform.tfstate") == ["2"]


def test_a_version_that_is_gone_is_empty(stubs: Stubs, bucket: StateBucket) -> None:
    """should not fail because a lifecycle rule has removed it meanwhile"""
    stubs.fails("s3", "get_object", "NoSuchVersion", 404)
    assert bucket.read_version("key", "2") == b""
    stubs.fails("s3", "get_object", "AccessDenied", 403)
    with pytest.raises(PermanentError):
        bucket.read_version("key", "2")
