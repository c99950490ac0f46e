"""Asks the gateway in this container whether it lives: exit 0 if so, else 1.

Exists because the image has neither curl nor a shell. It may not ask ``/health``, which
calls every model and costs money. Few imports: it runs every few seconds on a quarter CPU.
"""

import os
import sys
from http.client import HTTPConnection, HTTPException

LIMIT_SECONDS = 3.0


def main() -> int:
    """Return the exit code."""
    connection = HTTPConnection(
        "127.0.0.1", int(os.environ.get("PORT", "4000")), timeout=LIMIT_SECONDS
    )
    try:
        connection.request("GET", "/health/liveliness")
        return 0 if connection.getresponse().status == 200 else 1
    except (OSError, HTTPException):
        return 1
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
