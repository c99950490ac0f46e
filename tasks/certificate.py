"""The lab's certificate: kept while it is good, and replaced when it is not."""

from __future__ import annotations

from lab import names
from lab.certificate import Certificate, renewed
from lab.durations import now
from tasks.records import change_record, require_record
from tasks.site import Site
from tasks.stage import run_log


def certify(lab: str, site: Site) -> Certificate:
    """The certificate that the lab is to have from now on, for a run that holds the lab.

    On return the lab's record names the authority that callers trust. The certificate must reach
    Secrets Manager next: until then the record trusts both the new authority and that of the
    running task, and another call makes another certificate. It may never be logged or stored.
    """
    log = run_log()
    record = require_record(lab, site)
    for secret in (names.key_secret(lab), names.tls_secret(lab)):
        if site.secrets.restore(secret):
            log(f"the secret {secret} was to be deleted, and is kept")
    certificate = renewed(
        site.secrets.read(names.tls_secret(lab)),
        record.trust,
        names.tls_name(lab),
        at=now(),
        until=record.created_at + site.settings.longest_life + site.settings.stop_grace,
    )
    if certificate.trust != record.trust:
        log(f"a new certificate for {names.tls_name(lab)}")
        changes = {"trust": certificate.trust}
        change_record(lab, site, lambda known: known.model_copy(update=changes))
    return certificate
