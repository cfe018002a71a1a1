"""Notifies the service manager over ``$NOTIFY_SOCKET``, as sd_notify(3) does; stdlib only.

Without the socket every call does nothing, so the daemon need not know whether systemd is there.
"""

import os
import socket
from collections.abc import Mapping

_MOST_CHARS = 500  # of a status

# In seconds; generous, because one phase of building a plan may last a minute or two.
STARTING_S = 300


class Notifier:
    """Tells the service manager where the daemon stands.

    Args:
        environ: Where ``NOTIFY_SOCKET`` and ``WATCHDOG_USEC`` are looked up.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        usec = environ.get("WATCHDOG_USEC", "")
        self.watchdog_s = int(usec) / 1e6 if usec.isdigit() and int(usec) > 0 else None

    def ready(self, status: str) -> None:
        """Tell that the model is warm and chunks are being read."""
        self._send(f"READY=1\nSTATUS={_one_line(status)}")

    def status(self, status: str) -> None:
        """Give one line for ``systemctl status``."""
        self._send(f"STATUS={_one_line(status)}")

    def starting(self, status: str) -> None:
        """Tell that the start goes on and may take ``STARTING_S`` longer, counted from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={STARTING_S * 1_000_000}\nSTATUS={_one_line(status)}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Tell that the drain has begun."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # A leading "@" stands for the zero byte of an abstract socket (sd_notify(3)).
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            try:
                channel.sendto(message.encode(), address)
            except OSError:
                # The manager is gone or restarting; the next message may reach it.
                return


def _one_line(status: str) -> str:
    """A status as the protocol can carry it: an error's words may have several lines."""
    return " ".join(status.split())[:_MOST_CHARS]
