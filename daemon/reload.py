"""Upon SIGHUP, reads the configuration file again and applies what needs no restart.

That is the model and the log's level. Other keys that changed are named in the log, and keep their
old values until the daemon is restarted. A wrong file changes nothing.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import structlog

from daemon.config import Config, ModelConfig, load
from daemon.errors import ConfigError
from daemon.logs import set_level

# These belong to the device's batches, which stay when the model changes.
_NOT_LIVE = ("model.max_batch", "model.max_wait_ms")


class Reloader:
    """Reads the file again when told to.

    Args:
        path: The configuration file.
        config: What it held at the start.
        log: The outcome is logged here.

    Attributes:
        on_model: Told which model is wanted, even if it is the same, for the bundle in its folder
            may be another one.
    """

    def __init__(self, path: Path, config: Config, log: structlog.stdlib.BoundLogger) -> None:
        self.on_model: Callable[[ModelConfig], None] = self._keep
        self._path = path
        self._running = config
        self._log = log
        self._early: ModelConfig | None = None

    def reload(self) -> None:
        """Read the file and apply it."""
        try:
            seen = load(self._path)
        except ConfigError as error:
            self._log.error("config.refused", reason=str(error))
            return
        keys = sorted(changed_keys(self._running.model_dump(), seen.model_dump()))
        waiting = [key for key in keys if not _is_live(key)]
        if waiting:
            self._log.warning("config.restart_needed", keys=waiting)
        self._log.info("config.reloaded", changed=[key for key in keys if _is_live(key)])
        before = self._running.model
        fixed = {"max_batch": before.max_batch, "max_wait_ms": before.max_wait_ms}
        model = seen.model.model_copy(update=fixed)
        level = self._running.log.model_copy(update={"level": seen.log.level})
        self._running = self._running.model_copy(update={"model": model, "log": level})
        set_level(seen.log.level)
        self.on_model(model)

    def begin(self, on_model: Callable[[ModelConfig], None]) -> None:
        """From now on tell ``on_model``; a model that was wanted earlier is told at once."""
        self.on_model = on_model
        if self._early is not None:
            on_model(self._early)

    def _keep(self, model: ModelConfig) -> None:
        self._early = model


def changed_keys(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The keys whose values differ, as dotted names, e.g. ``model.bundle``."""
    for key in before.keys() | after.keys():
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from changed_keys(old, new, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _is_live(key: str) -> bool:
    return key == "log.level" or (key.startswith("model.") and key not in _NOT_LIVE)
