"""A site for unit tests: a state bucket in memory, and parts that the test hands in."""

from __future__ import annotations

import json
from typing import Any, cast

from adapters.aws.session import Cloud
from lab import names
from lab.place import Place
from lab.record import LabRecord
from lab.settings import Settings
from tasks.site import Site

PLACE = Place(account="111122223333", region="us-east-1")


class MemoryBucket:
    """The state bucket, with S3's conditional writes."""

    name = PLACE.bucket

    def __init__(self, *records: LabRecord) -> None:
        self.objects: dict[str, tuple[bytes, str]] = {}
        for record in records:
            self.keep(record)

    def keep(self, record: LabRecord) -> None:
        self.write_json(names.lab_record_key(record.lab), record.model_dump(mode="json"))

    def record(self, lab: str) -> LabRecord:
        return LabRecord.model_validate_json(self.objects[names.lab_record_key(lab)][0])

    def exists(self) -> bool:
        return True

    def read(self, key: str) -> tuple[bytes, str] | None:
        return self.objects.get(key)

    def etag(self, key: str) -> str | None:
        return self.objects.get(key, (b"", None))[1]

    def write(self, key: str, body: bytes, replacing: str | None) -> str | None:
        if replacing != self.etag(key):
            return None
        etag = f"{key}-{body!r}"
        self.objects[key] = (body, etag)
        return etag

    def read_json(self, key: str) -> dict[str, Any] | None:
        found = self.objects.get(key)
        return json.loads(found[0]) if found else None

    def write_json(self, key: str, record: dict[str, Any]) -> None:
        self.write(key, json.dumps(record).encode(), self.etag(key))

    def remove(self, key: str) -> None:
        self.objects.pop(key, None)

    def delete_prefix(self, prefix: str) -> None:
        self.objects = {k: v for k, v in self.objects.items() if not k.startswith(prefix)}


class FakeSite(Site):
    """A site whose parts are the test's own; a part that is not handed in cannot be used."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        bucket: object = None,
        registry: object = None,
        secrets: object = None,
        service: object = None,
        end: object = None,
        cloud: object = None,
    ) -> None:
        super().__init__(settings or Settings(), cast(Cloud, cloud), PLACE)
        self.bucket = cast(Any, bucket)
        self.registry = cast(Any, registry)
        self.secrets = cast(Any, secrets)
        self._service, self._end = cast(Any, service), cast(Any, end)

    def service(self, _: str) -> Any:
        return self._service

    def end(self, _: str) -> Any:
        return self._end
