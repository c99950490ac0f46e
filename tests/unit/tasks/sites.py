"""A state bucket as a unit test has it: in memory, with S3's conditional writes."""

from __future__ import annotations

import json
from typing import Any

from lab import names
from lab.place import Place
from lab.record import LabRecord

PLACE = Place(account="111122223333", region="us-east-1")


class MemoryBucket:
    """What a Cloud says of the objects in its state bucket."""

    def __init__(self, *records: LabRecord) -> None:
        self.objects: dict[str, tuple[bytes, str]] = {}
        for record in records:
            self.put_record("", names.lab_record_key(record.lab), record.model_dump(mode="json"))

    def record(self, lab: str) -> LabRecord:
        return LabRecord.model_validate_json(self.objects[names.lab_record_key(lab)][0])

    def read_object(self, _: str, key: str) -> tuple[bytes, str] | None:
        return self.objects.get(key)

    def write_object(self, _: str, key: str, body: bytes, replacing: str | None) -> str | None:
        if replacing != self.objects.get(key, (b"", None))[1]:
            return None
        etag = f"{key}-{body!r}"
        self.objects[key] = (body, etag)
        return etag

    def get_record(self, _: str, key: str) -> dict[str, Any] | None:
        found = self.objects.get(key)
        return json.loads(found[0]) if found else None

    def put_record(self, bucket: str, key: str, record: dict[str, Any]) -> None:
        before = self.objects.get(key, (b"", None))[1]
        self.write_object(bucket, key, json.dumps(record).encode(), before)
