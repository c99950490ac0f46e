"""Ups and a rotation on a live lab: what is replaced, and what goes on serving. In order."""

from __future__ import annotations

from adapters.gateway.client import open_client
from lab import names
from tests.observe import scheduled_ends
from tests.shared_lab import LAB, SharedLab
from workstation.targets import state_home


def test_a_second_up_builds_and_replaces_nothing(live: SharedLab) -> None:
    """should converge: nothing built, the same task serving, one end."""
    before = live.task().arn
    ended = live.up()
    assert ended.code == 0, ended.said
    report = live.report()
    assert not report.image_built
    assert live.task().arn == before
    assert len(scheduled_ends(LAB)) == 1


def test_a_broken_image_is_reported_and_the_old_version_still_serves(live: SharedLab) -> None:
    """should fail at the rollout with the container's words, and leave the old task serving."""
    before = live.task().arn
    tag = live.stack.push_broken_image(["bedrock-titan-lite"])
    try:
        ended = live.up(models=["bedrock-titan-lite"])
    finally:
        live.stack.session().client("ecr").batch_delete_image(
            repositoryName=names.repository_name(), imageIds=[{"imageTag": tag}]
        )
    assert ended.code != 0
    error = live.report().error or ""
    assert error.startswith("at rollout:")
    assert "exited with 7" in error
    assert "no gateway in this image" in error
    assert live.task().arn == before
    assert _answers(live)


def test_after_a_failed_up_the_lab_can_be_brought_up_again(live: SharedLab) -> None:
    """should build the image again, though the engine has pulled the broken one under its tag."""
    ended = live.up(models=["bedrock-titan-lite"])
    assert ended.code == 0, ended.said
    assert live.report().image_built


def test_a_model_that_fails_is_a_verdict(live: SharedLab) -> None:
    """should refuse an unknown alias before anything is touched, naming those that are known."""
    ended = live.up(models=["bedrock-nothing"])
    assert ended.code != 0
    assert "bedrock-nova-micro" in (live.report().error or "")
    assert _answers(live)


def test_another_key_replaces_the_old_one_under_a_lab_that_answers(live: SharedLab) -> None:
    """should serve with the old key until the new task runs, then refuse it, and show neither."""
    rotation = live.rotation()
    assert (rotation.new, rotation.after.arn) != (rotation.old, rotation.before.arn)
    assert rotation.status_of_new == 200
    assert rotation.status_of_old == 401
    # The local cloud takes a container that runs for one that is ready; AWS asks it.
    assert {status for at, status in rotation.answers if at < rotation.after_began} == {200}

    history = [state_home() / "prefect" / f"prefect.db{part}" for part in ("", "-wal")]
    kept = b"".join(path.read_bytes() for path in history if path.exists())
    kept += rotation.said.encode()
    s3, bucket = live.stack.session().client("s3"), live.stack.bucket.name
    for found in s3.list_objects_v2(Bucket=bucket)["Contents"]:
        kept += s3.get_object(Bucket=bucket, Key=found["Key"])["Body"].read()
    assert kept
    assert rotation.old.encode() not in kept
    assert rotation.new.encode() not in kept


def test_a_later_up_keeps_the_key_and_the_task(live: SharedLab) -> None:
    """should pass the number of the key on to Terraform, and replace nothing."""
    live.rotation()
    key, task = live.key(), live.task().arn
    version = live.record()["key_version"]
    assert version > 1
    ended = live.up(models=live.models)
    assert ended.code == 0, ended.said
    assert live.key() == key
    assert live.task().arn == task
    assert live.record()["key_version"] == version


def _answers(live: SharedLab) -> bool:
    answer = open_client(live.endpoint(), live.key()).chat.completions.create(
        model="bedrock-titan-lite", messages=[{"role": "user", "content": "Still there?"}]
    )
    return bool(answer.choices[0].message.content)
