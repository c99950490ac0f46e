"""The facts of a good lab: they pass each check of its posture."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from lab.posture import INVOKE, PROFILE_KEY, Check, Container, TaskFacts
from lab.record import LabRecord, ServedModel
from tests.unit.lab.test_leaks import GATEWAY_KEY

AT = datetime(2030, 1, 31, 12, 0, 0, tzinfo=UTC)
NAME = "gateway-lab-demo.internal"
FOUNDATION = "arn:aws:bedrock:us-east-1::foundation-model/"
PROFILE = "arn:aws:bedrock:us-east-1:111122223333:inference-profile/us.vendor.two-v1:0"
BOUNDARY = "arn:aws:iam::111122223333:policy/gateway-lab-boundary"
KNOWN = {"the gateway's key": GATEWAY_KEY}
RECORD = LabRecord(
    lab="demo",
    owner="somebody",
    created_at=AT,
    expires_at=AT + timedelta(hours=2),
    served={
        "one": ServedModel(model_id="vendor.one-v1:0"),
        "two": ServedModel(
            model_id="vendor.two-v1:0",
            inference_profile_id="us.vendor.two-v1:0",
            regions=["us-east-1", "us-west-2"],
        ),
    },
    image="localhost:4566/gateway-lab:0123@sha256:abcd",
)
TAGS = {"lab:id": "demo", "lab:project": "gateway-lab", "lab:owner": "somebody"}
CLUSTER = {**TAGS, "lab:expires-at": "2030-01-31T14:00:00Z"}


def allow(*resources: str, **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": sorted(INVOKE), "Resource": list(resources), **more}


THROUGH = {"StringEquals": {PROFILE_KEY: PROFILE}}
POLICY: dict[str, Any] = {
    "Statement": [
        allow(f"{FOUNDATION}vendor.one-v1:0"),
        allow(PROFILE),
        allow(f"{FOUNDATION}vendor.two-v1:0", Condition=THROUGH),
        {"Effect": "Deny", "Action": "*", "Resource": "*"},
    ]
}
SECRETS = {
    name: f"arn:aws:secretsmanager:us-east-1:111122223333:secret:{name}"
    for name in ("LITELLM_MASTER_KEY", "GATEWAY_TLS_PEM")
}
CONTAINER = Container(
    name="gateway",
    text='{"name": "gateway"}',
    environment={"PORT": "4000"},
    secrets=SECRETS,
    user="65532:65532",
    read_only=True,
    dropped=("ALL",),
)
TASK = TaskFacts(
    arn="arn:aws:ecs:us-east-1:111122223333:task/gateway-lab-demo/1",
    revision="gateway-lab-demo:3",
    containers=(CONTAINER,),
    overrides={},
    capacity="FARGATE_SPOT",
    image_digest="sha256:abcd",
    can_exec=False,
    groups=("sg-1",),
)


def missed(check: Check, *words: str) -> None:
    """Assert that the check is missed, and that its result has these words."""
    assert not check.passed
    for word in words:
        assert word in check.found
