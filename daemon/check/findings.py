"""What a check has found: each fault a line that names the value and the fix."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from daemon.errors import ConfigError, TransportError
from engine.errors import BundleError, DeviceError

Say = Callable[[str], None]


class Findings:
    """Collects faults; what is right is told at once.

    Args:
        where: The configuration's file, which begins each fault.
        say: Told what is right.
    """

    def __init__(self, where: str, say: Say) -> None:
        self.say = say
        self._where = where
        self._wrong: list[str] = []
        self._passing: list[str] = []

    @contextmanager
    def of(self, key: str, good: str = "") -> Iterator[None]:
        """Take an error for a fault of ``key``, and tell ``good`` if there is none."""
        try:
            yield
        except TransportError as error:
            self._passing += self._lines(key, str(error))
        except (ConfigError, BundleError, DeviceError) as error:
            self.fault(key, str(error))
        else:
            if good:
                self.say(f"ok: {key}: {good}")

    def fault(self, key: str, text: str) -> None:
        """Take a fault of ``key``."""
        self.take(self._lines(key, text))

    def take(self, lines: Iterable[str]) -> None:
        """Take faults that begin with the file's name already."""
        self._wrong += lines

    def end(self) -> None:
        """Raise what was found, if anything was.

        Raises:
            ConfigError: Something must be changed.
            TransportError: Nothing must be, but a broker could not be reached.
        """
        if self._wrong:
            raise ConfigError("\n".join([*self._wrong, *self._passing]))
        if self._passing:
            raise TransportError("\n".join(self._passing))

    def _lines(self, key: str, text: str) -> list[str]:
        lines = [line.removeprefix(f"{self._where}: ") for line in text.splitlines()]
        return [f"{self._where}: {key}: {line}" for line in lines]
