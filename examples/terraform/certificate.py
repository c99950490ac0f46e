"""Makes a lab's certificate for Terraform: ``eval "$(python certificate.py LAB CA_FILE)"``.

CA_FILE gets the authority that callers trust, which is public. Earlier authorities stay in it: a
task serves with its old certificate until the next one runs. The private key is in no file: it is
printed for the shell, which hands it to Terraform, which writes it to Secrets Manager.
"""

import shlex
import sys
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lab import names
from lab.certificate import make_certificate
from lab.durations import now

#: As long as a lab of the flows may live.
LIFE = timedelta(hours=72)


def main(lab: str, ca_file: str) -> None:
    """Write the authority, and print the rest as shell assignments."""
    names.check_lab_name(lab)
    at = now()
    made = make_certificate(names.tls_name(lab), at, at + LIFE)
    file = Path(ca_file)
    file.write_text(made.trust.ca + (file.read_text() if file.exists() else ""))
    print(f"export TF_VAR_tls_pem={shlex.quote(made.pem)}")
    print(f"export TLS_VERSION={made.trust.version}")


if __name__ == "__main__":
    main(*sys.argv[1:])
