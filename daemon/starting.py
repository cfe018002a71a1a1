"""The start, before there is an app: health answers, and the first model is opened.

Building a GPU's plans can take minutes. Meanwhile /livez says that the process lives and /readyz
that it is building, and each step extends the service manager's time-out.

A broker that is away after that is waited for without end. The service manager is then told that
the start is over, for it would end one that lasts, and a machine that boots would wait for it.
/readyz says that the daemon is not ready.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

from daemon.app import App
from daemon.calls import RunningCalls
from daemon.config import Config, ModelConfig
from daemon.device.thread import Device
from daemon.health import HealthServer
from daemon.library_lines import LINES
from daemon.metrics import Metrics
from daemon.models.opening import ModelOpener
from daemon.models.slot import ModelSlot, ServingStatus
from daemon.models.swap import ModelSwap
from daemon.outages import Outages
from daemon.systemd import Notifier
from daemon.watch import Watch
from engine.errors import S2netdError

R = TypeVar("R")


class StoppedError(S2netdError):
    """SIGTERM came before the daemon was ready."""


class Start:
    """The first part of a daemon's life.

    Args:
        config: The daemon's configuration.
        notifier: The service manager, which is told how far the start is.
        metrics: What /metrics shows; changes of the model are counted there.
        log: Changes of the model are logged here.
        apps: Holds the app, once there is one.
        calls: The calls that run.
        outages: What is waited for.

    Attributes:
        watch: Watches over the daemon, now and later.
    """

    def __init__(
        self,
        config: Config,
        notifier: Notifier,
        metrics: Metrics,
        log: structlog.stdlib.BoundLogger,
        apps: list[App],
        calls: RunningCalls,
        outages: Outages,
    ) -> None:
        self.watch = Watch(notifier, calls, outages, metrics, tell=self._say)
        self._outages = outages
        self._building = ""
        self._said = ""
        self._config = config
        self._notifier = notifier
        self._metrics = metrics
        self._log = log
        self._apps = apps
        self._status = ServingStatus()

    def open_health(self) -> HealthServer:
        """Answer /livez, /readyz and /metrics from now on.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        http = self._config.http
        return HealthServer(
            http.host,
            http.port,
            self._metrics.registry,
            self._is_live,
            self._is_ready,
            on_dropped=self._tell_dropped,
        )

    def _tell_dropped(self, why: str) -> None:
        self._metrics.http_dropped.labels(why).inc()
        self._log.warning("http.dropped", error=why)

    async def open_model(self, device: Device, stack: contextlib.AsyncExitStack) -> ModelSwap:
        """Open the model that serves first, and return what brings in others.

        Args:
            device: Where models run.
            stack: Closes what was opened.

        Raises:
            BundleError: The bundle is missing, damaged or foreign, or strays from its reference.
            ConfigError: A name in ``labels`` is none of its classes.
            DeviceError: The backend could not be opened.
        """
        opener = ModelOpener(device, self._status, self._tell, self._log)
        stack.callback(opener.close)
        stack.push_async_callback(opener.settle)
        read = await opener.read(first_model(self._config.model))
        model = await opener.open(read)
        self._status.served(model.description)
        swap = ModelSwap(
            slot=ModelSlot(model),
            serving=read,
            opener=opener,
            status=self._status,
            metrics=self._metrics,
            log=self._log,
        )
        stack.push_async_callback(swap.close)
        return swap

    def _tell(self, what: str) -> None:
        self._building = what
        self._said = ""  # each step of a build extends the time-out, whatever it is called
        self._say()

    def _say(self) -> None:
        """Give the service manager one line of how it stands, if that has changed."""
        LINES.tell(self._log)
        waiting = self._outages.status
        consuming = "consuming" if self._apps and not self._outages.stop_all else ""
        said = "; ".join(part for part in (consuming, waiting, self._building) if part)
        if not said or said == self._said:
            return
        self._said = said
        if self._apps:
            self._notifier.status(said)
        elif waiting:
            self._notifier.ready(said)
        else:
            self._notifier.starting(said)

    def _is_live(self) -> tuple[bool, dict[str, Any]]:
        if self._apps:
            return self._apps[0].is_live()
        is_live, details = self.watch.is_live()
        return is_live, {**details, "starting": True}

    def _is_ready(self) -> tuple[bool, dict[str, Any]]:
        starting = (False, {"ready": False, "waiting": self._outages.report()})
        is_ready, details = self._apps[0].is_ready() if self._apps else starting
        return is_ready, {**details, "model": self._status.report()}


def first_model(config: ModelConfig) -> ModelConfig:
    """The model to serve first: on the CPU, if it is to serve while a GPU's plans are built."""
    if config.backend != "tensorrt" or config.while_building == "wait":
        return config
    return config.model_copy(update={"backend": "openvino", "precision": "auto"})


async def unless(
    stop: asyncio.Event | None,
    work: Coroutine[Any, Any, R],
    beside: Coroutine[Any, Any, None],
) -> R:
    """Do ``work``, but give it up as soon as ``stop`` is set.

    Args:
        stop: Whoever sets it wants no start; None: nobody does.
        work: Part of the start.
        beside: Runs meanwhile, and is cancelled in the end.

    Raises:
        StoppedError: ``stop`` was set first.
    """
    working, helper = asyncio.create_task(work), asyncio.create_task(beside)
    stopped = asyncio.create_task((stop or asyncio.Event()).wait())
    either: set[asyncio.Task[Any]] = {working, stopped, helper}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if helper.done():
            helper.result()
        if not working.done():
            raise StoppedError("stopped before it was ready")
        return working.result()
    finally:
        for task in either:
            task.cancel()
        await asyncio.wait(either)
