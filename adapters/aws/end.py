"""The lab's end as the cloud itself knows it: the schedule that stops it, and the cluster's tag."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from adapters.aws.errors import translate_aws_errors
from adapters.aws.session import Cloud
from lab import names
from lab.durations import to_rfc3339

if TYPE_CHECKING:
    from mypy_boto3_ecs import ECSClient


class LabEnd:
    """The end of ``lab``."""

    def __init__(self, cloud: Cloud, lab: str) -> None:
        """``cloud`` holds the lab, of which nothing need exist yet."""
        self.lab = lab
        self.name = names.resource_name(lab)
        self._cloud = cloud

    @property
    def _ecs(self) -> ECSClient:
        return cast("ECSClient", self._cloud.client("ecs"))

    def move_stop(self, at: datetime) -> bool:
        """Move the schedule that stops the lab's service to ``at``; False if there is none."""
        scheduler = self._cloud.client("scheduler")
        name, group = names.STOP_SCHEDULE, self.name
        with translate_aws_errors(f"moving the stop of {self.lab}"):
            try:
                known = scheduler.get_schedule(Name=name, GroupName=group)
            except scheduler.exceptions.ResourceNotFoundException:
                return False
            # An update replaces the whole schedule: a setting that is not given again is gone.
            not_settable = {"ResponseMetadata", "Arn", "CreationDate", "LastModificationDate"}
            kept = {key: value for key, value in known.items() if key not in not_settable}
            kept["ScheduleExpression"] = f"at({at.astimezone(UTC):%Y-%m-%dT%H:%M:%S})"
            scheduler.update_schedule(**kept)
        return True

    def write_tag(self, at: datetime) -> None:
        """Write the lab's end into its cluster's tag; a lab without a cluster has none."""
        with translate_aws_errors(f"tagging the end of {self.lab}"):
            found = self._ecs.describe_clusters(clusters=[self.name])["clusters"]
            for cluster in found:
                if cluster["status"] == "ACTIVE":
                    self._ecs.tag_resource(
                        resourceArn=cluster["clusterArn"],
                        tags=[{"key": names.TAG_EXPIRES_AT, "value": to_rfc3339(at)}],
                    )

    def read_tag(self) -> datetime | None:
        """The end that the lab's cluster is tagged with, if there is such a cluster and tag."""
        with translate_aws_errors(f"reading the tags of {self.lab}"):
            found = self._ecs.describe_clusters(clusters=[self.name], include=["TAGS"])["clusters"]
        for cluster in found:
            for tag in cluster.get("tags", []):
                if tag.get("key") == names.TAG_EXPIRES_AT and cluster["status"] == "ACTIVE":
                    return datetime.fromisoformat(tag["value"])
        return None
