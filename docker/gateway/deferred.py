"""Defers imports that no served route needs, until something uses them.

Exists because LiteLLM's proxy imports every subsystem that it has and builds hundreds of routes
before it answers: most of the CPU time of its start. A module that is named here is empty at first.
Each name that is imported from it is a stand-in, which imports the real module when it is called,
read or derived from. It may change no answer, and it stands for functions and classes only: a
stand-in for a constant would be silently wrong; ``tests/image`` looks for such constants.
"""

import re
import sys
import types
from collections.abc import Callable
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder

# Parts of these do not work with stand-ins for the rest: all of them are real, or none.
WHOLE = ("mcp", "mcp_types")
# Each with everything below it.
DEFERRED = (
    # Of LiteLLM: routes that the gate refuses, and modules that only these import.
    *(f"litellm.proxy.{name}_endpoints" for name in ("analytics", "batches", "container")),
    *(f"litellm.proxy.{name}_endpoints" for name in ("credential", "fine_tuning", "google")),
    *(f"litellm.proxy.{name}_endpoints" for name in ("image", "management", "moyai", "ocr")),
    *(f"litellm.proxy.{name}_endpoints" for name in ("openai_files", "pass_through", "public")),
    *(f"litellm.proxy.{name}_endpoints" for name in ("rag", "rerank", "search", "ui_crud")),
    "litellm.proxy.lens",
    "litellm.proxy.memory",
    "litellm.proxy.policy_engine",
    "litellm.proxy.spend_tracking.spend_management_endpoints",
    "litellm.proxy.video_endpoints",
    # Of LiteLLM: Google's interactions, realtime, and loggers that no lab has.
    *(f"litellm.{name}" for name in ("interactions", "realtime_api", "types.interactions")),
    *(f"litellm.integrations.{name}" for name in ("agentops", "clickhouse")),
    # The Model Context Protocol.
    *WHOLE,
    # Types of OpenAI's API that are neither chat, completions, responses nor models.
    "openai.lib.streaming._assistants",
    *(f"openai.types.{name}" for name in ("beta", "containers", "conversations", "evals")),
    *(f"openai.types.eval_{name}" for name in ("create_params", "create_response")),
    *(f"openai.types.eval_{name}_response" for name in ("list", "retrieve", "update")),
    *(f"openai.types.{name}" for name in ("fine_tuning", "graders", "realtime", "skills")),
    *(f"openai.types.{name}" for name in ("uploads", "vector_stores", "webhooks")),
)
# As if not installed: their importers can work without them. The gateway knows no MCP servers.
# OpenTelemetry's SDK is not there, and its logger would be tried again at every request. The
# last is httpx's command line.
REFUSED = {
    "litellm.proxy._experimental.mcp_server.mcp_server_manager",
    "litellm.integrations.otel.logger",
    "httpx._main",
}
# Below those, but others import constants from them.
IMPORTED = {
    "litellm.interactions.background_cost_polling",
    "litellm.proxy.lens.signals",
    "litellm.proxy.management_endpoints.management_v1.common",
    "mcp_types.version",
}


class StandIn(type):
    """The class of stand-ins for a function or a class until it is used.

    A stand-in is a class, because classes can be named in annotations and in isinstance: nothing
    is an instance of a class that was never imported.
    """

    # Without them, ``in`` would go through __getitem__ forever.
    __contains__ = __iter__ = None

    def __new__(mcs, name, bases, members, **options):  # noqa: ANN001, ANN003, ANN204
        """A stand-in; or, with one among ``bases``, a class that is derived from the real one."""
        if not any(isinstance(base, StandIn) for base in bases):
            return super().__new__(mcs, name, bases, members)
        real = tuple(base.find() if isinstance(base, StandIn) else base for base in bases)
        return types.new_class(name, real, options, lambda space: space.update(members))

    def find(cls):  # noqa: ANN201
        """The real function or class."""
        return getattr(_load(cls.__module__), cls.__name__)

    def __call__(cls, *args, **options):  # noqa: ANN002, ANN003, ANN204
        """The result of the real function or class."""
        return cls.find()(*args, **options)

    def __getattr__(cls, name):  # noqa: ANN001, ANN204
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(cls.find(), name)

    def __getitem__(cls, _):  # noqa: ANN001, ANN204
        return cls

    def __instancecheck__(cls, instance) -> bool:  # noqa: ANN001
        return _is_real(cls.__module__) and isinstance(instance, cls.find())

    def __subclasscheck__(cls, other) -> bool:  # noqa: ANN001
        return _is_real(cls.__module__) and issubclass(other, cls.find())


STAND_INS: list[StandIn] = []
_LOADED: set[str] = set()


class Deferring:
    """A finder and loader of empty modules in place of the deferred ones."""

    def find_spec(self, name, path=None, target=None):  # noqa: ANN001, ANN201
        """A spec with the real module's place in the file system, and this loader."""
        if name in REFUSED:
            raise ModuleNotFoundError(f"{name} is left out of the gateway", name=name)
        if name in IMPORTED or _is_real(name) or not _BELOW.match(name):
            return None
        real = PathFinder.find_spec(name, path)
        if real is None:
            return None
        inside = real.submodule_search_locations
        spec = ModuleSpec(name, self, origin=real.origin, is_package=inside is not None)
        spec.submodule_search_locations = inside
        return spec

    def create_module(self, spec) -> None:  # noqa: ANN001
        """Leave it to Python."""

    def exec_module(self, module) -> None:  # noqa: ANN001
        """Give the module names that are made when they are imported."""

        def find(name: str):  # noqa: ANN202
            if name == "__all__":
                raise ImportError(f"all of {module.__name__} is wanted, and it is deferred")
            if name.startswith("__"):
                raise AttributeError(name)
            if _is_real(module.__name__):
                return getattr(_load(module.__name__), name)
            below = f"{module.__name__}.{name}"
            if hasattr(module, "__path__") and PathFinder.find_spec(below, module.__path__):
                return import_module(below)
            found = _stand_in(module.__name__, name)
            setattr(module, name, found)
            return found

        module.__getattr__ = find


_BELOW = re.compile(rf"({'|'.join(map(re.escape, DEFERRED))})(\.|$)")


def _stand_in(module: str, name: str):  # noqa: ANN202
    if name == "router":
        # None of its routes would be kept.
        from fastapi import APIRouter

        return APIRouter()

    def schema(_, source, handler):  # noqa: ANN001, ANN202
        return handler.generate_schema(made.find())

    # For pydantic, which calls it where a model has a field of that class.
    members = {"__module__": module, "__get_pydantic_core_schema__": classmethod(schema)}
    made = StandIn(name, (), members)
    STAND_INS.append(made)
    return made


def _is_real(name: str) -> bool:
    return name in _LOADED or name.partition(".")[0] in _LOADED


def _load(name: str) -> types.ModuleType:
    if not _is_real(name):
        top = name.partition(".")[0]
        if top in WHOLE:
            _LOADED.update(WHOLE)
            for other in [m for m in sys.modules if m.partition(".")[0] in WHOLE]:
                del sys.modules[other]
        else:
            _LOADED.add(name)
            del sys.modules[name]
    return import_module(name)


def defer(is_served: Callable[[str, str], bool]) -> None:
    """Defer these imports from now on, and have FastAPI leave out routes that are not served.

    ``is_served`` is called with a method and a path.
    """
    from fastapi import APIRouter

    add = APIRouter.add_api_route

    def add_if_served(self, path, endpoint, **options):  # noqa: ANN001, ANN003, ANN202
        # A parameter of the path stands for any one word.
        example = re.sub(r"\{[^}]*\}", "x", self.prefix + path)
        if any(is_served(method, example) for method in options.get("methods") or ["GET"]):
            add(self, path, endpoint, **options)

    APIRouter.add_api_route = add_if_served
    sys.meta_path.insert(0, Deferring())
