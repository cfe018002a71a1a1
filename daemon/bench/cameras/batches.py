"""Measures what sharing calls brings: many cameras in calls of a batch, and in calls of one.

The two sides run in turn, in one process, on one model, through the daemon's own ``Device``.
Because machines are noisy, each run is compared with the neighbouring run of the other side.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from daemon.device.requests import BatchPolicy, Lane
from daemon.device.thread import Device
from daemon.metrics import Metrics
from daemon.models.reading import OpenModel
from engine.types import CasWindow, FeatureWindow, Snippet, SnippetFeature, Span

# Pairs of runs, of which the median speed-up is shown.
N_PAIRS = 7
# Requests in one run that measures the queue itself: enough for a steady figure, and the run takes
# a fraction of a second.
N_QUEUE_ASKS = 500

NewDevice = Callable[[BatchPolicy, Metrics], Device]


@dataclass(frozen=True, slots=True)
class _Load:
    """What every camera asks for again and again: a snippet, and the window that it completes."""

    model: OpenModel
    snippet: Snippet
    window: FeatureWindow


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of one side.

    Attributes:
        snippets_per_s: Snippets a second, of all cameras together.
        mean_batch: Mean number of snippets in a backbone call.
        busy_share: Share of the time that the device spent in calls.
    """

    snippets_per_s: float
    mean_batch: float
    busy_share: float


class _Echo:
    """A backbone that takes no time, so that only the queue's own time is left."""

    feature_dim = 1

    def extract(self, snippets: Sequence[Snippet]) -> list[SnippetFeature]:
        return [SnippetFeature(s.index, s.segment, _NOTHING) for s in snippets]


_NOTHING = np.zeros(1, np.float32)


def compare_batches(
    new_device: NewDevice, model: OpenModel, n_cameras: int, batch: int, seconds: float
) -> dict[str, float]:
    """Compare the throughput of ``n_cameras`` in calls of up to ``batch`` with calls of one.

    Args:
        new_device: Makes devices on the thread that may use the model.
        model: The model, warm.
        n_cameras: How many cameras; each asks for a snippet, then for a window, and begins again.
        batch: Most items in a call.
        seconds: Time for all runs together, if the model is fast enough for that.

    Returns:
        For both sides: snippets a second, mean batch, and share of the time spent in calls. Of
        the ``pairs`` pairs: the median, least and greatest speed-up. And the queue's own time for
        a snippet, in microseconds.
    """
    load = _load(model)
    one, many = BatchPolicy(1), BatchPolicy(batch)
    tried = _run(new_device, many, load, n_cameras, 1)
    once_s = n_cameras / tried.snippets_per_s
    n_rounds = max(int(seconds / (2 * N_PAIRS) / once_s), 1)
    pairs: list[tuple[_Run, _Run]] = []
    for number in range(N_PAIRS):
        # The sides take turns in being first, so that a drift of the machine hits both equally.
        order = (one, many) if number % 2 else (many, one)
        runs = {policy: _run(new_device, policy, load, n_cameras, n_rounds) for policy in order}
        pairs.append((runs[one], runs[many]))
    ratios = [batched.snippets_per_s / single.snippets_per_s for single, batched in pairs]
    return {
        "cameras": n_cameras,
        "batch": batch,
        **_medians("one_by_one", [single for single, _ in pairs]),
        **_medians("batched", [batched for _, batched in pairs]),
        "speed_up": statistics.median(ratios),
        "speed_up_least": min(ratios),
        "speed_up_most": max(ratios),
        "pairs": N_PAIRS,
        "queue_us_per_call": _queue_us(new_device, many, load, 1),
        "queue_us_per_snippet": _queue_us(new_device, many, load, n_cameras),
    }


def _medians(side: str, runs: Sequence[_Run]) -> dict[str, float]:
    return {
        f"{side}_snippets_per_s": statistics.median(run.snippets_per_s for run in runs),
        f"{side}_mean_batch": statistics.median(run.mean_batch for run in runs),
        f"{side}_busy_share": statistics.median(run.busy_share for run in runs),
    }


def _load(model: OpenModel) -> _Load:
    spec, rng = model.spec, np.random.default_rng(0)
    side, n = spec.geometry.crop_px, spec.window.window_snippets
    rgb = rng.integers(0, 256, (spec.grid.snippet_frames, side, side, 3), np.uint8)
    return _Load(
        model,
        Snippet(0, 0, Span(0, spec.grid.snippet_us), rgb),
        FeatureWindow(
            0,
            0,
            rng.random((n, spec.feature_dim), np.float32),
            np.ones(n, np.bool_),
            np.zeros(spec.feature_dim, np.float32),
        ),
    )


def _run(
    new_device: NewDevice, policy: BatchPolicy, load: _Load, n_cameras: int, n_rounds: int
) -> _Run:
    metrics = Metrics()
    device = new_device(policy, metrics)

    async def ask(camera: str) -> list[CasWindow]:
        await device.extract(load.model.extractor, [load.snippet], camera=camera)
        return await device.localize(load.model.localizer, [load.window], camera=camera)

    spent_s = asyncio.run(_feed(device, ask, n_cameras, n_rounds))
    device.close()
    n_snippets = n_cameras * n_rounds
    return _Run(n_snippets / spent_s, n_snippets / _n_calls(metrics), _busy_s(metrics) / spent_s)


async def _feed(
    device: Device, ask: Callable[[str], Awaitable[object]], n_cameras: int, n_rounds: int
) -> float:
    """Let every camera ask ``n_rounds`` times, each time as soon as it is answered.

    Returns:
        The seconds that this took.
    """

    async def camera(name: str) -> None:
        for _ in range(n_rounds):
            await ask(name)

    serving = asyncio.create_task(device.serve())
    started_s = time.perf_counter()
    await asyncio.gather(*(camera(f"camera-{i}") for i in range(n_cameras)))
    spent_s = time.perf_counter() - started_s
    serving.cancel()
    await asyncio.wait({serving})
    return spent_s


def _queue_us(new_device: NewDevice, policy: BatchPolicy, load: _Load, n_cameras: int) -> float:
    """Time of queue, threads and event loop for one snippet, in microseconds; a median of runs."""
    echo, spent_us = _Echo(), []
    n_rounds = max(N_QUEUE_ASKS // n_cameras, 1)
    for _ in range(N_PAIRS):
        device = new_device(policy, Metrics())

        async def ask(camera: str, device: Device = device) -> list[SnippetFeature]:
            return await device.extract(echo, [load.snippet], camera=camera)

        spent_s = asyncio.run(_feed(device, ask, n_cameras, n_rounds))
        device.close()
        spent_us.append(1e6 * spent_s / (n_cameras * n_rounds))
    return statistics.median(spent_us)


def _n_calls(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("s2netd_device_batch_count") or 0


def _busy_s(metrics: Metrics) -> float:
    values = (
        metrics.registry.get_sample_value(
            "s2netd_device_busy_seconds_total", {"stage": lane.value}
        )
        for lane in Lane
    )
    return sum(value or 0 for value in values)
