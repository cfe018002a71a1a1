"""Replaces the model while cameras are served, which then go over to it between two chunks.

The new model is opened in the background. If yet another one is wanted meanwhile, the first is
given up. Whatever goes wrong with a candidate, the model that serves goes on; the log, a metric
and /readyz tell what it was.
"""

import asyncio
from dataclasses import dataclass

import structlog

from daemon.config import ModelConfig
from daemon.metrics import Metrics
from daemon.models.opening import ModelOpener
from daemon.models.reading import ReadModel
from daemon.models.slot import ModelSlot, OpenModel, ServingStatus
from engine.errors import DeviceError

# With the bundle's digest, these keys tell models apart. The other keys say how to bring one in.
_MAKES_A_MODEL = frozenset(
    {
        "bundle",
        "labels",
        "open_score",
        "economy",
        "backend",
        "precision",
        "threads",
        "gpu",
        "max_batch",
        "one_batch_size",
        "verify",
    }
)


@dataclass(frozen=True, slots=True)
class _Identity:
    """Equal for two configurations that give the same model."""

    digest: str
    keys: str

    @classmethod
    def of(cls, read: ReadModel) -> "_Identity":
        return cls(read.bundle.digest, read.config.model_dump_json(include=set(_MAKES_A_MODEL)))


class ModelSwap:
    """Brings in the models that are wanted, one after another.

    Args:
        slot: Holds the current model.
        serving: The bundle that the current model was opened from.
        opener: Opens other models.
        status: Told how far a candidate is.
        metrics: Changes of the model are counted here.
        log: Changes of the model are logged here.
    """

    def __init__(
        self,
        *,
        slot: ModelSlot,
        serving: ReadModel,
        opener: ModelOpener,
        status: ServingStatus,
        metrics: Metrics,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._slot = slot
        self._serving = _Identity.of(serving)
        self._opener = opener
        self._status = status
        self._metrics = metrics
        self._log = log
        self._wish: ModelConfig | None = None
        self._wished = asyncio.Event()
        self._unused: list[OpenModel] = []
        self._has_unused = asyncio.Event()
        slot.on_unused = self._retire

    @property
    def slot(self) -> ModelSlot:
        """Holds the current model."""
        return self._slot

    def want(self, config: ModelConfig) -> None:
        """Bring this model in; give up any other one that is on its way."""
        self._wish = config
        self._wished.set()

    async def serve(self) -> None:
        """Bring in the models that are wanted, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._close_unused(), name="close models")
            while True:
                await self._wished.wait()
                self._wished.clear()
                granting = group.create_task(self._grant(), name="model swap")
                newer = group.create_task(self._wished.wait(), name="newer wish")
                await asyncio.wait({granting, newer}, return_when=asyncio.FIRST_COMPLETED)
                if not granting.done():
                    self._log.info("model.given_up", candidate=self._status.candidate)
                for task in (granting, newer):
                    task.cancel()
                await asyncio.wait({granting, newer})

    async def close(self) -> None:
        """Close every model, on the device thread; by then no camera may work any more."""
        await self._opener.settle()
        await self._opener.discard(*self._slot.models, *self._unused)

    async def _grant(self) -> None:
        wish = self._wish
        if wish is None:
            return
        try:
            read = await self._opener.read(wish)
            wanted = _Identity.of(read)
            if wanted == self._serving:
                self._status.unchanged()
                self._log.info("model.unchanged", model=self._slot.current.description)
                return
            self._log.info("model.building", candidate=read.description)
            model = await self._opener.open(read)
        except Exception as error:  # noqa: BLE001 - whatever a candidate does, cameras go on
            self._fail(wish, error)
            return
        finally:
            self._opener.tell("")
        # No await from here on: otherwise a cancellation could leave the change half done.
        self._serving = wanted
        self._status.served(model.description)
        self._metrics.model_swaps.labels("done").inc()
        self._log.info(
            "model.swapped",
            before=self._slot.current.description,
            model=model.description,
            precision=model.why,
        )
        self._slot.put(model)

    def _fail(self, wish: ModelConfig, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        self._status.failed(reason)
        self._metrics.model_swaps.labels("failed").inc()
        self._log.error(
            "model.swap_failed",
            candidate=wish.bundle,
            backend=wish.backend,
            error=type(error).__name__,
            reason=str(error),
            serving=self._slot.current.description,
        )

    def _retire(self, model: OpenModel) -> None:
        self._unused.append(model)
        self._has_unused.set()

    async def _close_unused(self) -> None:
        while True:
            await self._has_unused.wait()
            self._has_unused.clear()
            while self._unused:
                model = self._unused[0]
                try:
                    await self._opener.discard(model)
                except DeviceError as error:  # the model that serves may be well all the same
                    self._log.warning(
                        "model.close_failed", model=model.description, reason=str(error)
                    )
                    self._unused.remove(model)
                    continue
                self._unused.remove(model)
                self._log.info("model.closed", model=model.description)
