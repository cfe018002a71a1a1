"""A swap of models that serves, with all it works on, and a GPU that is none."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from daemon.calls import RunningCalls
from daemon.clock import SystemClock
from daemon.config import ModelConfig, parse_model
from daemon.device.requests import BatchPolicy
from daemon.device.thread import Device
from daemon.metrics import Metrics
from daemon.models.opening import GpuSteps, ModelOpener, try_out
from daemon.models.reading import ReadModel, open_read, read_model
from daemon.models.slot import ModelSlot, OpenModel, ServingStatus
from daemon.models.swap import ModelSwap
from engine.backends.options import OnLog, OnProgress
from engine.errors import DeviceError
from tests.support.daemons import LogCapture


def a_config(bundle: Path, **changes: object) -> ModelConfig:
    return parse_model({"bundle": str(bundle), "precision": "f32", "threads": 1, **changes})


@dataclass
class Rig:
    """A swap that serves, with all it works on."""

    swap: ModelSwap
    slot: ModelSlot
    status: ServingStatus
    metrics: Metrics
    logs: LogCapture
    told: list[str]
    device: Device

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(240):
            while not holds():
                await asyncio.sleep(0.01)

    def count(self, outcome: str) -> float:
        labels = {"outcome": outcome}
        return self.metrics.registry.get_sample_value("s2netd_model_swaps_total", labels) or 0


@asynccontextmanager
async def a_rig(config: ModelConfig, gpu: GpuSteps | None = None) -> AsyncIterator[Rig]:
    metrics, logs, status, told = Metrics(), LogCapture(), ServingStatus(), []
    device = Device(BatchPolicy(4), metrics, RunningCalls(SystemClock()))
    opener = ModelOpener(device, status, told.append, logs.logger(), gpu or GpuSteps())
    read = await opener.read(config)
    slot = ModelSlot(await opener.open(read))
    status.served(slot.current.description)
    swap = ModelSwap(
        slot=slot,
        serving=read,
        opener=opener,
        status=status,
        metrics=metrics,
        log=logs.logger(),
    )
    serving = asyncio.create_task(swap.serve())
    try:
        yield Rig(swap, slot, status, metrics, logs, told, device)
    finally:
        serving.cancel()
        await asyncio.wait({serving})
        await swap.close()
        opener.close()
        device.close()
        assert serving.cancelled()
        assert all(is_closed(model) for model in slot.models)


def is_closed(model: OpenModel) -> bool:
    try:
        try_out(model)
    except DeviceError as error:
        return "is closed" in str(error)
    return False


class FakeGpu:
    """Plans take as long as they are made to, and run in OpenVINO."""

    def __init__(self, runs: Path) -> None:
        self.may_finish = threading.Event()
        self.threads: dict[str, str] = {}
        self.n_begun = self.n_given_up = 0
        self._runs = runs  # the bundle that answers

    def steps(self) -> GpuSteps:
        return GpuSteps(self.build, self.open)

    def build(self, _read: ReadModel, on_progress: OnProgress, on_log: OnLog) -> None:
        self.n_begun += 1
        self.threads["build"] = threading.current_thread().name
        on_log("verbose", "not worth a line")
        on_log("info", "of use when one looks for a fault")
        on_log("warning", "this GPU is not a real one\n")
        n_done = 0
        while not self.may_finish.wait(0.01):
            n_done += 1
            try:
                on_progress("Building", n_done, 1000)
            except Exception:
                self.n_given_up += 1
                raise

    def open(self, read: ReadModel, _on_log: OnLog) -> OpenModel:
        self.threads["open"] = threading.current_thread().name
        model = open_read(read_model(a_config(self._runs)))
        for backend in model.backends:
            backend._description = "tensorrt 10 f16 of a test"  # type: ignore[attr-defined]
        return replace(model, spec=read.spec)
