"""What `produce` tells a person at a terminal: the events of its log, as sentences."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, cast

import structlog
from rich.console import Console
from structlog.typing import EventDict

from daemon.clock import SystemClock
from daemon.log_lines import Floods
from daemon.logs import MOST_A_MINUTE
from daemon.produce.feed import FeedStatus

_OWN = ("event", "camera", "source")


def _status(said: dict[str, Any]) -> FeedStatus:
    return FeedStatus(**{field.name: said[field.name] for field in fields(FeedStatus)})


def _waiting(said: dict[str, Any]) -> str:
    what = ", ".join(said["what"])
    since = f"waiting for the {said['waiting_for']} since {said['for_s']} s"
    return f"{since}: {what}: {said['reason']}"


_SENTENCES: dict[str, Callable[[dict[str, Any]], str]] = {
    "produce.note": lambda said: f"{said['source']}: {said['said']}",
    "produce.connected": lambda said: f"{said['source']}: connected",
    "produce.unreadable": lambda said: f"{said['reason']}; going on with the next file",
    "produce.away": lambda said: (
        f"{said['reason']}; connecting again in {said['again_in_s']:.0f} s"
    ),
    "produce.password_shown": lambda _said: (
        "the address holds a password, which everybody on this machine sees in the list of "
        "processes: write it into a file, and name that as @FILE"
    ),
    "produce.not_sent": lambda said: (
        f"{said['camera']}: {said['chunks']} chunks, {said['seconds']} s of video, were not sent: "
        f"{said['reason']}"
    ),
    "produce.status": lambda said: _status(said).line(),
    "outage.began": _waiting,
    "outage.lasts": _waiting,
    "outage.over": lambda said: (
        f"the {said['waited_for']} is there again, after {said['after_s']} s"
    ),
}


def console_log(console: Console) -> structlog.stdlib.BoundLogger:
    """A logger whose lines are sentences on a console; floods are counted as in the log."""

    def show(_logger: object, _method: str, said: EventDict) -> EventDict:
        console.print(
            sentence(dict(said)), markup=False, highlight=False, soft_wrap=True, emoji=False
        )
        raise structlog.DropEvent

    logger = structlog.wrap_logger(
        None,
        processors=[
            Floods(SystemClock().monotonic_s, MOST_A_MINUTE),
            structlog.processors.format_exc_info,
            show,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
    return cast(structlog.stdlib.BoundLogger, logger)


def sentence(said: dict[str, Any]) -> str:
    """A line of the log as a sentence."""
    make = _SENTENCES.get(said["event"], _others)
    untold = f" (and {said['n_untold']} times more)" if said.get("n_untold") else ""
    return make(said) + untold


def _others(said: dict[str, Any]) -> str:
    rest = " ".join(f"{key}={value}" for key, value in said.items() if key not in _OWN)
    return f"{said.get('camera', 's2netd')}: {said['event']} {rest}"
