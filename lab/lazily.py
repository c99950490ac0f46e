"""Modules that are imported when they are first used, because importing them takes long.

A flow's process imports every stage before its first one begins, also what is needed minutes later
or, where an image is built already, not at all. For such modules only: a plain import says more.
"""

from __future__ import annotations

import importlib
import threading
from typing import Any


class Lazily:
    """Stands for the module ``name``: the first attribute imports it. May be used by threads."""

    def __init__(self, name: str) -> None:
        self._name = name

    @staticmethod
    def begin(name: str) -> None:
        """Begin to import the module ``name`` beside what goes on: it will be used soon."""
        threading.Thread(target=importlib.import_module, args=(name,), daemon=True).start()

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)
