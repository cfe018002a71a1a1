"""What TensorRT says, to whoever listens: one logger for each TensorRT, for the whole process.

TensorRT keeps the first logger it is given for as long as anything of it lives, and ignores later
ones. Worse, it says so while it holds a lock of its own: if that call into Python happens to
collect an old builder or runtime as garbage, its destructor waits for the same lock, forever.
With one logger there is nothing to say.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

OnLog = Callable[[str, str], None]  # severity: internal_error, error, warning, info or verbose


class _Broadcast:
    """Passes messages on to all listeners of the moment."""

    def __init__(self) -> None:
        self._listeners: tuple[OnLog, ...] = ()
        self._lock = threading.Lock()

    def tell(self, severity: str, message: str) -> None:
        for listener in self._listeners:
            listener(severity, message)

    def add(self, listener: OnLog) -> None:
        with self._lock:
            self._listeners = (*self._listeners, listener)

    def remove(self, listener: OnLog) -> None:
        with self._lock:
            self._listeners = tuple(other for other in self._listeners if other is not listener)


def listen_for_good(module: Any, on_log: OnLog) -> Any:
    """Hear all that TensorRT says from now on; gives the logger. As ``listening`` otherwise."""
    logger, broadcast = _logger(module)
    broadcast.add(on_log)
    return logger


@contextmanager
def listening(module: Any, on_log: OnLog) -> Iterator[Any]:
    """Hear what TensorRT says meanwhile, all its threads and users together.

    Args:
        module: An imported TensorRT.
        on_log: Called from any thread; it must not raise, for TensorRT could not pass that on.

    Yields:
        The logger for everything of TensorRT that wants one.
    """
    logger, broadcast = _logger(module)
    broadcast.add(on_log)
    try:
        yield logger
    finally:
        broadcast.remove(on_log)


@functools.cache
def _logger(module: Any) -> tuple[Any, _Broadcast]:
    broadcast = _Broadcast()
    severities = {int(value): name.lower() for name, value in _severities(module)}

    class Logger(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            broadcast.tell(severities.get(int(severity), "error"), message)

    return Logger(), broadcast


def _severities(module: Any) -> list[tuple[str, Any]]:
    return list(module.ILogger.Severity.__members__.items())
