"""The posture of a live lab: every check passes, and what was changed by hand is named."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from lab import names
from lab.posture import CheckName
from tests.observe import artifact
from tests.shared_lab import LAB, SharedLab


def test_every_check_of_the_posture_passes(live: SharedLab) -> None:
    """should have looked at the live lab at the end of the up, and again when asked to."""
    posture = live.report().posture
    assert posture is not None
    assert [check.name for check in posture.checks] == list(CheckName)
    assert posture.misses == ""
    assert posture.summary in artifact(names.artifact_key(LAB, "posture"))
    ended = live.run("lab-verify")
    assert ended.code == 0, ended.said
    assert _misses() == []


def test_what_was_broken_by_hand_is_named(live: SharedLab) -> None:
    """should fail with the name of each thing at once, and put nothing right by itself."""
    session, name, log = live.stack.session(), names.resource_name(LAB), names.log_group(LAB)
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
        assert live.run("lab-verify").code != 0
        missed = _misses()
    assert missed == [
        CheckName.FIREWALL,
        CheckName.IAM_MODELS,
        CheckName.ROLE,
        CheckName.RETENTION,
    ]
    ended = live.run("lab-verify")
    assert ended.code == 0, ended.said


def test_iam_is_asked_within_the_roles_boundary(live: SharedLab) -> None:
    """should not call allowed what a role's policy allows and its boundary does not."""
    iam, role = live.stack.session().client("iam"), f"{names.resource_name(LAB)}-task"
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


def _misses() -> list[str]:
    """The checks that the newest table of the lab's posture says were missed."""
    table = artifact(names.artifact_key(LAB, "posture"))
    rows = (line.split(" | ") for line in table.splitlines())
    return [row[0].removeprefix("| ") for row in rows if row[1:2] == ["MISSED"]]
