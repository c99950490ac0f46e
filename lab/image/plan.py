"""The image that an up needs: as planned, and as the registry holds it. Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer


class ImagePlan(BaseModel):
    """The image that an up needs: its inputs give its name, whether or not it exists yet."""

    model_config = ConfigDict(frozen=True)

    repository: str
    tag: str
    base_reference: str
    base_source: str
    config: str
    pushed_digest: str | None = None

    @property
    def reference(self) -> str:
        """``repository:tag``."""
        return f"{self.repository}:{self.tag}"


class PushedImage(BaseModel):
    """The image as the registry holds it: its tag, and the digest of what was pushed under it."""

    model_config = ConfigDict(frozen=True)

    repository: str
    tag: str
    digest: str

    @classmethod
    def of(cls, plan: ImagePlan, digest: str) -> PushedImage:
        """The image of ``plan``, which the registry holds as ``digest``."""
        return cls(repository=plan.repository, tag=plan.tag, digest=digest)

    @property
    def reference(self) -> str:
        """``repository:tag``."""
        return f"{self.repository}:{self.tag}"

    def __str__(self) -> str:
        """``repository:tag@digest``."""
        return f"{self.reference}@{self.digest}"


def _parse(value: object) -> object:
    if not isinstance(value, str):
        return value
    reference, _, digest = value.partition("@")
    repository, _, tag = reference.rpartition(":")
    return PushedImage(repository=repository, tag=tag, digest=digest)


#: A pushed image that is written as ``repository:tag@digest``, in a lab's record and report.
PinnedImage = Annotated[PushedImage, BeforeValidator(_parse), PlainSerializer(str)]
