"""Asks the gateway in this container whether it is alive: exit 0 if it is, else 1.

Exists because the image has neither curl nor a shell. It asks as a client of the lab does: with
the key, over TLS, under the lab's name. It may not ask ``/health``, which calls every model and
costs money. Few imports: it runs every few seconds on a quarter CPU.
"""

import os
import ssl
import sys
from http.client import HTTPConnection, HTTPException

LIMIT_SECONDS = 3.0
BEGIN = "-----BEGIN CERTIFICATE-----"


def main() -> int:
    """Return the exit code."""
    try:
        key, pem, name = (
            os.environ[variable]
            for variable in ("LITELLM_MASTER_KEY", "GATEWAY_TLS_PEM", "GATEWAY_TLS_NAME")
        )
        port = int(os.environ.get("PORT", "4000"))
        # The last certificate is the lab's authority.
        context = ssl.create_default_context(cadata=BEGIN + pem.rpartition(BEGIN)[2])
        connection = HTTPConnection("127.0.0.1", port, timeout=LIMIT_SECONDS)
        connection.connect()
        connection.sock = context.wrap_socket(connection.sock, server_hostname=name)
        headers = {"Authorization": f"Bearer {key}"}
        connection.request("GET", "/health/liveliness", headers=headers)
        return 0 if connection.getresponse().status == 200 else 1
    except (KeyError, OSError, ValueError, HTTPException) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        return 1


if __name__ == "__main__":
    sys.exit(main())
