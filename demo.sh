#!/usr/bin/env bash
# The main job in one command: the same as `python3 demo.py`, with the same options.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
make --no-print-directory venv
exec .venv/bin/python demo.py "$@"
