"""The Kafka client floods no log, and nothing that it says is left out in silence."""

import io
import json
import logging

import pytest

from daemon.library_lines import TOLD_AFTER_S, TOLD_EVERY_S, LibraryLines
from daemon.logs import set_up
from tests.support.daemons import LogCapture


class Library:
    """A library's logger, what of it is shown, and a clock."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.lines = LibraryLines(lambda: self.now_s)
        self.shown = io.StringIO()
        self.logs = LogCapture()
        self._handler = logging.StreamHandler(self.shown)
        self._handler.addFilter(self.lines)

    def says(self, name: str, template: str, *values: object) -> None:
        line = {"name": name, "levelno": logging.ERROR, "msg": template, "args": values}
        self._handler.handle(logging.makeLogRecord(line))

    def told(self) -> list[dict[str, object]]:
        self.now_s += TOLD_AFTER_S
        self.lines.tell(self.logs.logger())
        return self.logs.named("library.left_out")


def test_chatter_of_an_outage_is_only_counted() -> None:
    library = Library()
    for second in range(600):
        library.now_s = second
        library.lines.tell(library.logs.logger())
        for node in range(30):
            library.says("aiokafka", "Unable connect to node with id %s: %s", node, "refused")
            library.says(
                "aiokafka.consumer.fetcher", "Failed fetch messages from %s: %s", node, ""
            )
    library.now_s += TOLD_EVERY_S
    told = library.told()

    assert "" == library.shown.getvalue()
    assert len(told) <= 4
    assert 600 * 60 == sum(int(str(each["lines"])) for each in told)
    assert any("Unable connect to node" in kind for kind in told[-1]["most"])  # type: ignore[attr-defined]


def test_lines_that_never_repeat_fill_no_memory() -> None:
    library = Library()
    for n in range(1000):
        library.says("aiokafka", "Heartbeat " + "".join(chr(97 + int(d)) for d in str(n)))

    assert 1000 == sum(int(str(each["lines"])) for each in library.told())


def test_all_other_lines_pass() -> None:
    library = Library()
    for name in ("s2netd.kafka", "some.library", "aiokafka"):
        library.says(name, "group %s", "g")

    assert 3 == library.shown.getvalue().count("group g")


@pytest.mark.parametrize(("name", "n_shown"), [("aiokafka", 0), ("s2netd.kafka", 1)])
def test_the_daemon_s_log_is_kept_from_floods(name: str, n_shown: int) -> None:
    out = io.StringIO()
    root = logging.getLogger()
    before = root.handlers, root.level
    try:
        set_up("json", "info", out)
        for _ in range(2):
            logging.getLogger(name).error("Unable connect to node with id %s", 1)
    finally:
        root.handlers, root.level = before
    assert n_shown == len([json.loads(line) for line in out.getvalue().splitlines()])
