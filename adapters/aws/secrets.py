"""The lab's secrets in Secrets Manager: the gateway's key and its certificate.

One function reads a value. Its result is never logged and never stored.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal, cast

from adapters.aws.errors import translate_aws_errors
from adapters.aws.session import Cloud
from lab.errors import PermanentError

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

_UP_RESTORES_IT = (
    "Bring the lab up again with lab-up, which restores the secret. Until then the task that runs "
    "serves on, and no other can start."
)


class Secrets:
    """The secrets of the account and region. May be shared between threads."""

    def __init__(self, cloud: Cloud) -> None:
        """``cloud`` holds them."""
        self._cloud = cloud

    @property
    def _client(self) -> SecretsManagerClient:
        return cast("SecretsManagerClient", self._cloud.client("secretsmanager"))

    def read(
        self, secret: str, version: Literal["AWSCURRENT", "AWSPREVIOUS"] = "AWSCURRENT"
    ) -> str | None:
        """The value of ``secret``; ``None`` where the secret or that version of it is missing.

        Raises PermanentError for a secret that waits for its deletion.
        """
        errors = self._client.exceptions
        with translate_aws_errors(f"reading the secret {secret}"):
            try:
                found = self._client.get_secret_value(SecretId=secret, VersionStage=version)
            except errors.ResourceNotFoundException:
                return None
            except errors.InvalidRequestException as error:
                if "deletion" not in str(error):
                    raise
                raise PermanentError(
                    f"the secret {secret} waits for its deletion, and cannot be read",
                    _UP_RESTORES_IT,
                ) from error
        # The first version of a secret may have no value.
        return found.get("SecretString")

    def require(self, secret: str) -> str:
        """The value of ``secret``; PermanentError where somebody has deleted it.

        The error says how to get another one.
        """
        value = self.read(secret)
        if value is None:
            raise PermanentError(f"the secret {secret} is gone, or has no value", _UP_RESTORES_IT)
        return value

    def written_at(self, secret: str) -> datetime | None:
        """When the present value was written; ``None`` where there is none."""
        with translate_aws_errors(f"reading the versions of the secret {secret}"):
            try:
                # Only versions with a label are listed, and there are few labels.
                versions = self._client.list_secret_version_ids(SecretId=secret)["Versions"]
            except self._client.exceptions.ResourceNotFoundException:
                return None
        return next(
            (v["CreatedDate"] for v in versions if "AWSCURRENT" in v.get("VersionStages", [])), None
        )

    def restore(self, secret: str) -> bool:
        """Cancel the deletion of ``secret`` if it waits for one; True if it did.

        Without this it can neither be read nor be made again under its name.
        """
        with translate_aws_errors(f"looking for the secret {secret}"):
            try:
                found = self._client.describe_secret(SecretId=secret)
            except self._client.exceptions.ResourceNotFoundException:
                return False
            if "DeletedDate" not in found:
                return False
            self._client.restore_secret(SecretId=secret)
        return True
