"""A model that is being measured, on the one thread that may use it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from daemon.calls import RunningCalls
from daemon.clock import SystemClock
from daemon.config import ModelConfig
from daemon.device.requests import BatchPolicy
from daemon.device.thread import Device
from daemon.metrics import Metrics
from daemon.models.choosing import open_model
from daemon.models.slot import OpenModel

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class BenchModel:
    """A warm model and the one thread that may use it, as a GPU belongs to who opened it.

    Attributes:
        model: The model, warm.
        thread: The thread in which it was opened.
        batch: Most snippets in one call.
    """

    model: OpenModel
    thread: ThreadPoolExecutor
    batch: int

    def run(self, work: Callable[[], R]) -> R:
        """Do ``work`` on the model's thread."""
        return self.thread.submit(work).result()

    def new_device(self, policy: BatchPolicy, metrics: Metrics) -> Device:
        """A ``Device``, as the daemon has one, on the model's thread."""
        return Device(policy, metrics, RunningCalls(SystemClock()), thread=self.thread)


@contextmanager
def opened(config: ModelConfig) -> Iterator[BenchModel]:
    """Open a model and warm it up; close it afterwards.

    Raises:
        S2netdError: As ``open_model``.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="device") as thread:
        model = thread.submit(open_model, config).result()
        try:
            thread.submit(model.warm_up).result()
            yield BenchModel(model, thread, config.max_batch)
        finally:
            thread.submit(model.close).result()
