"""A local journal keeps each camera's newest status, for whoever opens the file to look."""

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from daemon.journal.base import CameraState, CameraStatus, Owner, Presence, Step
from daemon.journal.local import LocalJournal, LocalJournalSettings
from daemon.journal.projections.jsonl import JsonlProjection, JsonlSettings
from daemon.journal.statuses import status_json

ONLINE = CameraStatus("door", Presence.ONLINE, 5, "door", Owner("host"), "model@1")
SILENT = replace(ONLINE, state=Presence.SILENT, silent_since_us=3)


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[LocalJournal]:
    projection = JsonlProjection(JsonlSettings(folder / "events.jsonl"))
    settings = LocalJournalSettings(folder / "journal.sqlite", site="depot")
    journal = LocalJournal(settings, projection)
    await journal.start()
    try:
        yield journal
    finally:
        await journal.close()


def kept(folder: Path) -> dict[str, object]:
    connection = sqlite3.connect(folder / "journal.sqlite")
    try:
        rows = connection.execute("SELECT camera, status FROM statuses").fetchall()
    finally:
        connection.close()
    return {camera: json.loads(status) for camera, status in rows}


async def test_the_newest_status_of_each_camera_is_kept(tmp_path: Path) -> None:
    yard = replace(ONLINE, camera="yard")
    async with opened(tmp_path) as journal:
        await journal.take("door")
        await journal.commit("door", Step(1, 1, statuses=(ONLINE, yard)))
        await journal.commit("door", Step(2, 2, statuses=(SILENT,)))

    wanted = {each.camera: status_json(each, site="depot") for each in (SILENT, yard)}
    assert wanted == kept(tmp_path)


async def test_of_a_forgotten_camera_nothing_is_kept(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await journal.take("door")
        await journal.commit("door", Step(1, 1, statuses=(ONLINE,)))
        gone = replace(ONLINE, state=Presence.FORGOTTEN)
        await journal.commit("door", Step(2, 2, statuses=(gone,)))

    assert {} == kept(tmp_path)


async def test_a_restart_knows_that_a_camera_was_silent(tmp_path: Path) -> None:
    state = CameraState(b"blob", silent_since_us=3)
    async with opened(tmp_path) as journal:
        await journal.take("door")
        await journal.commit("door", Step(1, 1, states={"door": state}, statuses=(SILENT,)))

    async with opened(tmp_path) as journal:
        past = await journal.take("door")

    assert state == past.cameras["door"].state
