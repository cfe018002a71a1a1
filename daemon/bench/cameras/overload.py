"""Measures what the ladder does for a machine with more cameras than it carries, for a while."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from statistics import median

from typing_extensions import override

from daemon.app import App
from daemon.bench.cameras.decoding import Decoding
from daemon.bench.cameras.model import BenchModel
from daemon.bench.cameras.stages import Footage
from daemon.bench.cameras.whole_daemon import LoopingCameras, started
from daemon.metrics import Metrics
from daemon.sources.base import Delivery

LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Load:
    """How many cameras, and for how long.

    Attributes:
        n_cameras: Those that stay.
        n_more: Those that come besides, at first.
        surge_s: How long these are there.
        after_s: How long the others go on.
    """

    n_cameras: int
    n_more: int
    surge_s: float
    after_s: float


@dataclass(frozen=True, slots=True)
class Looked:
    """How the cameras were at one moment.

    Attributes:
        at_s: Since the beginning.
        n_lowered: Cameras that are below the rung that is configured.
        lag_s: Of the cameras that stay, the median of how late their events come.
        most_lag_s: The largest.
    """

    at_s: float
    n_lowered: int
    lag_s: float
    most_lag_s: float


class SurgingCameras(LoopingCameras):
    """Live cameras, of which some go away after a while.

    Args:
        footage: What all show.
        load: How many they are.
    """

    def __init__(self, footage: Footage, load: Load) -> None:
        n_all = load.n_cameras + load.n_more
        super().__init__(footage, n_all, load.surge_s + load.after_s, paced=True)
        self._load = load
        self._anchor_us = 0

    @override
    async def deliveries(self) -> AsyncIterator[Delivery]:
        """See ``ChunkSource``; each chunk tells when it was captured."""
        self._anchor_us = time.time_ns() // 1000
        async for delivery in super().deliveries():
            chunk, number = delivery.chunk, int(delivery.camera.rpartition("-")[2])
            if chunk is None:
                continue
            is_there = number < self._load.n_cameras
            if is_there or chunk.start_us < self._load.surge_s * 1e6:
                yield replace(delivery, chunk=replace(chunk, anchor_us=self._anchor_us))


async def overload(
    footage: Footage, bench: BenchModel, load: Load, decoding: Decoding
) -> dict[str, float | str]:
    """Let the whole daemon serve them, and tell how late it was and when it lowered what."""
    async with started(bench, SurgingCameras(footage, load), decoding, Metrics()) as app:
        watching = asyncio.create_task(_watched(app, load))
        await app.serve()
        watching.cancel()
        seen = await watching
    return figures_of(seen, load)


async def _watched(app: App, load: Load) -> list[Looked]:
    began_s, seen = time.monotonic(), []
    try:
        while True:
            await asyncio.sleep(LOOK_S)
            cameras = app.is_ready()[1].get("cameras", {})
            staying = [cameras.get(f"camera-{number}", {}) for number in range(load.n_cameras)]
            lags_s = [one["lag_s"] for one in staying if one.get("lag_s") is not None]
            # Of one that went away, its last word stands.
            lowered = sum("overload" in one.get("degraded", ()) for one in staying)
            if lags_s:
                at_s = time.monotonic() - began_s
                seen.append(Looked(at_s, lowered, median(lags_s), max(lags_s)))
    except asyncio.CancelledError:
        return seen


def figures_of(seen: list[Looked], load: Load) -> dict[str, float | str]:
    """What was seen, in a few figures."""
    surge = [one for one in seen if one.at_s <= load.surge_s]
    after = [one for one in seen if one.at_s > load.surge_s]
    engaged_s = next((one.at_s for one in surge if one.n_lowered), None)
    settled = [one for one in surge if one.at_s > load.surge_s / 2]
    lowered_s = max((one.at_s - load.surge_s for one in after if one.n_lowered), default=0.0)
    is_full_again = not after or not after[-1].n_lowered
    return {
        "cameras": f"{load.n_cameras + load.n_more} for {load.surge_s:g} s, "
        f"then {load.n_cameras} for {load.after_s:g} s",
        "engaged_after_s": "never" if engaged_s is None else engaged_s,
        "most_lag_s": max((one.most_lag_s for one in surge), default=0.0),
        "lag_in_the_second_half_s": median([one.lag_s for one in settled] or [0.0]),
        "full_again_after_s": lowered_s if is_full_again else "never",
        "lag_at_the_end_s": after[-1].lag_s if after else 0.0,
    }
