"""Runs MiniStack so that a lab survives not only its stop but also its death.

Exists because MiniStack 1.5 writes its state only at an orderly shutdown, in files that all users
of the machine can read, and an image registry's layers as text inside one file. Here the state is
also written a moment after calls that may have changed it, for its owner alone, because it holds
the secrets of labs; and each layer once, as a file of its own. It may not change MiniStack's
answers: ``authorization.py`` decides who may call what, ``containers.py`` sets the bounds of
containers, and ``completion.py`` adds what AWS answers and MiniStack does not.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

import ministack.app as cloud
from authorization import Authorization, TaskRoles, Trail, ensure_deployer_key
from completion import complete
from containers import hold_to_bounds
from ministack.core import persistence
from ministack.core.responses import AccountRegionScopedDict
from ministack.services import ecr, ecs

# A save waits until nothing has changed for this long, but no longer than the second.
QUIET_SECONDS = 1.0
PATIENCE_SECONDS = 5.0
# Calls that change nothing worth keeping: models answering, MiniStack's own pages.
UNCHANGING_PATHS = ("/model/", "/_ministack/", "/_localstack/", "/health")
READING = frozenset({"GET", "HEAD", "OPTIONS"})

logger = logging.getLogger("gateway-lab")


class Keeper:
    """Saves the state in a thread, some time after a change was noted."""

    def __init__(self) -> None:
        self._changed = threading.Event()
        self._again = threading.Event()
        self._saving = threading.Lock()
        self._save_all = persistence.save_all

    def note_change(self) -> None:
        """Ask for a save. Returns at once."""
        self._again.set()
        self._changed.set()

    def save(self, services: dict) -> None:
        """Save now; one save at a time, since they share their temporary files."""
        with self._saving:
            self._save_all(services)

    def run(self) -> None:
        """Save after changes, forever."""
        while True:
            self._changed.wait()
            for _ in range(round(PATIENCE_SECONDS / QUIET_SECONDS)):
                self._again.clear()
                if not self._again.wait(QUIET_SECONDS):
                    break
            self._changed.clear()
            try:
                self.save(cloud._build_persistence_save_dict())
            except Exception:
                logger.exception("The state could not be saved; trying again")
                self.note_change()


class LayerStore:
    """Keeps the registry's layers as files named by their digest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._get_state = ecr.get_state
        self._load_state = ecr.load_persisted_state

    def get_state(self) -> dict:
        """The registry's state, with digests in place of layers; layers are on disk."""
        state = self._get_state()
        self._folder.mkdir(parents=True, exist_ok=True)
        present = {path.name for path in self._folder.iterdir()}
        digests = AccountRegionScopedDict()
        needed = set()
        for key, layers in state["layer_blobs"]._data.items():
            digests._data[key] = sorted(layers)
            for digest, content in layers.items():
                name = digest.replace(":", "-")
                needed.add(name)
                if name not in present:
                    partial = self._folder / f"{name}.partial"
                    partial.write_bytes(content)
                    partial.replace(self._folder / name)
                    present.add(name)
        for name in present - needed:
            (self._folder / name).unlink(missing_ok=True)
        return {**state, "layer_blobs": digests}

    def load_state(self, data: dict) -> None:
        """Restore the registry; a layer that is gone or damaged must be pushed again."""
        for key, digests in data["layer_blobs"]._data.items():
            layers = {}
            for digest in digests:
                with contextlib.suppress(OSError):
                    content = (self._folder / digest.replace(":", "-")).read_bytes()
                    if digest == f"sha256:{hashlib.sha256(content).hexdigest()}":
                        layers[digest] = content
            data["layer_blobs"]._data[key] = layers
        self._load_state(data)


def keep_private(folder: Path) -> None:
    """From now on only their owner can read the services' files, the existing ones too."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(0o600)

    def open_private(path: str, mode: str = "r") -> IO:
        return open(path, mode, opener=lambda name, flags: os.open(name, flags, 0o600))

    persistence.open = open_private


def load_containers(data: dict, load: Callable[[dict], None] = ecs.load_persisted_state) -> None:
    """Restore ECS with its old tasks as ECS shows tasks that are gone: no longer wanted.

    MiniStack stops them but still lists them, together with those that replace them.
    """
    for task in data.get("tasks", AccountRegionScopedDict())._data.values():
        task["desiredStatus"] = "STOPPED"
        task.setdefault("stoppedReason", "The local cloud was restarted")
    load(data)


def main() -> None:
    """Serve until a signal stops it, then save and return."""
    keeper = Keeper()
    services = Path(os.environ["STATE_DIR"])
    keep_private(services)
    state = services.parent
    store = LayerStore(state / "layers")
    ecr.get_state, ecr.load_persisted_state = store.get_state, store.load_state
    ecs.load_persisted_state = load_containers
    cloud.save_all = keeper.save
    ensure_deployer_key()
    Authorization(Trail(state / "trail.jsonl")).install()
    TaskRoles().install()
    hold_to_bounds()
    complete()
    serve = cloud.app

    async def app(scope, receive, send):  # noqa: ANN001, ANN202
        try:
            await serve(scope, receive, send)
        finally:
            if (
                scope["type"] == "http"
                and scope["method"] not in READING
                and not scope["path"].startswith(UNCHANGING_PATHS)
            ):
                keeper.note_change()

    cloud.app = app
    threading.Thread(target=keeper.run, daemon=True, name="gateway-lab-keeper").start()
    with contextlib.suppress(asyncio.CancelledError):
        cloud.main()


if __name__ == "__main__":
    main()
