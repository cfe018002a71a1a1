"""Configuration → an open, warm, verified model, while cameras are being served.

Slow work is done aside: reading and hashing the bundle, building plans, compiling for the CPU, and
the reference's part of a verification. What must be done where the model will run (opening it on a
GPU, warming it up, its own part of the verification) goes to the device thread in short steps,
between the batches of the cameras.

Whoever waits for it may be cancelled at any moment: what was opened is closed again.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import structlog

from daemon.config import ModelConfig
from daemon.device.thread import Device
from daemon.models.reading import OpenModel, ReadModel, build_plans, open_read, read_model
from daemon.models.slot import ServingStatus
from engine.backends.base import EngineBackend
from engine.backends.options import OnLog, OnProgress
from engine.bundle.reference import reference_of
from engine.errors import BundleError
from engine.types import CasWindow, FeatureWindow, FloatArray, Snippet, SnippetFeature
from engine.verification.footage import PROCEDURAL_SNIPPETS, procedural
from engine.verification.verifier import Networks, Verification, Verifier, sizes_to_try
from engine.windows import window_of

R = TypeVar("R")

Tell = Callable[[str], None]

# Enough to see that a network answers, and that two rows of a call do not upset each other.
_TRIED_SNIPPETS = 2

# What a runtime says, by how loudly it is passed on. Not "verbose": a build says some 10^5 lines
# of that, which `s2netd engine build --verbose` shows.
_LEVELS = {
    "internal_error": logging.WARNING,
    "error": logging.WARNING,
    "warning": logging.WARNING,
    "info": logging.DEBUG,
}


class _GivenUpError(Exception):
    """Nobody waits for the plan any more."""


@dataclass(frozen=True, slots=True)
class GpuSteps:
    """What a GPU needs, so that the order of things can be tried without one.

    Attributes:
        build: Puts the plans into the cache; see ``build_plans``.
        open: Opens them, on the device thread; see ``open_read``.
    """

    build: Callable[[ReadModel, OnProgress, OnLog], None] = build_plans
    open: Callable[[ReadModel, OnLog], OpenModel] = open_read


class ModelOpener:
    """Brings models to where they can serve, one at a time.

    Args:
        device: Where they will run.
        status: Told how far it is.
        tell: Likewise, in words, from the event loop; only while things move.
        log: What a runtime says that somebody may want to act on.
        gpu: How models get onto a GPU; of ``daemon.models.reading`` if left out.

    Attributes:
        tell: The same; no words once nothing is on its way.
    """

    def __init__(
        self,
        device: Device,
        status: ServingStatus,
        tell: Tell,
        log: structlog.stdlib.BoundLogger,
        gpu: GpuSteps = GpuSteps(),
    ) -> None:
        self._gpu = gpu
        self._device = device
        self._status = status
        self.tell = tell
        self._log = log
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._leftover: asyncio.Task[None] | None = None

    async def settle(self) -> None:
        """Wait until what was given up is closed."""
        leftover = self._leftover
        if leftover is None:
            return
        await asyncio.wait({leftover})  # cancelled here, it is still waited for later
        self._leftover = None
        if (error := leftover.exception()) is not None:
            self._note("error", f"closing what was given up: {error}")

    def close(self) -> None:
        """Wait for what runs aside, and end its thread."""
        self._thread.shutdown(wait=True)

    async def read(self, config: ModelConfig) -> ReadModel:
        """Read and verify a bundle; see ``read_model`` for what it raises."""
        return await self._aside(lambda: read_model(config))

    async def open(self, read: ReadModel) -> OpenModel:
        """Build what must be built, open, warm up, and verify unless told not to.

        Raises:
            BundleError: A network does not keep the contract, or strays from its reference.
            DeviceError: The backend could not be opened, or failed.
        """
        name = read.description
        self._status.begin(name)
        await self.settle()
        given_up = threading.Event()
        opened: list[OpenModel] = []
        try:
            self.tell(f"building {name}")
            await self._open(read, opened, given_up)
            model = opened[0]
            for backend in model.backends:
                await self._device.run(backend.warm_up)
            if read.config.verify:
                self._status.verify(name)
                self.tell(f"verifying {name}")
                await self._verify(read, model)
            await self._aside(read.check_unchanged)
        except BaseException:
            given_up.set()
            # Aside: whoever waits may be cancelled again, and a drain must not wait for a build.
            self._leftover = asyncio.create_task(self._clean_up(opened), name="clean up")
            raise
        return model

    async def _clean_up(self, opened: list[OpenModel]) -> None:
        # Both threads are waited for first: one may be opening the model at this moment.
        await self._aside(lambda: None)
        await self._device.run(lambda: None)
        await self.discard(*opened)

    async def discard(self, *models: OpenModel) -> None:
        """Close models, each on the device thread."""
        for model in models:
            await self._device.run(model.close)

    async def _open(
        self, read: ReadModel, opened: list[OpenModel], given_up: threading.Event
    ) -> None:
        loop = asyncio.get_running_loop()

        def on_log(severity: str, message: str) -> None:
            if severity in _LEVELS:
                loop.call_soon_threadsafe(self._note, severity, message)

        def work() -> None:
            opened.append(open_read(read, on_log))

        if read.config.backend != "tensorrt":
            await self._aside(work)
            return

        def on_progress(phase: str, n_done: int, n_steps: int) -> None:
            if given_up.is_set():
                raise _GivenUpError  # ends the build; the cache keeps nothing
            share = f"{phase}: {n_done} of {n_steps}"
            loop.call_soon_threadsafe(self.tell, f"building {read.spec.model_id}: {share}")

        await self._aside(lambda: self._gpu.build(read, on_progress, on_log))
        # The thread that opens a GPU's context owns it.
        await self._device.run(lambda: opened.append(self._gpu.open(read, on_log)))

    def _note(self, severity: str, message: str) -> None:
        self._log.log(
            _LEVELS[severity], "model.runtime_said", severity=severity, message=message.strip()
        )

    async def _verify(self, read: ReadModel, model: OpenModel) -> None:
        await self._device.run(lambda: try_out(model))
        if not must_be_compared(model.backends):
            return
        verification = await self.compare(read, model)
        if not verification.holds:
            raise BundleError(
                f"{model.description} strays from {verification.reference}: "
                + "; ".join(verification.reasons)
            )

    async def compare(self, read: ReadModel, model: OpenModel) -> Verification:
        """Hold an open model to its bundle in f32 on the CPU.

        Raises:
            BundleError: A network does not keep the contract.
            DeviceError: A backend could not be opened, or failed.
        """
        # Batches of one: it answers the same, in half the memory.
        in_f32 = {"backend": "openvino", "precision": "f32", "max_batch": 1}
        original = await self._aside(lambda: reference_of(read.bundle))
        wanted = ReadModel(
            read.config.model_copy(update=in_f32), original, read.spec, read.class_indices
        )
        sizes = sizes_to_try(read.config.backend, read.config.max_batch)
        reference = await self._aside(lambda: open_read(wanted))
        try:
            verifier = Verifier(
                Networks(*reference.backends),
                Networks(*model.backends),
                procedural(read.spec, max(PROCEDURAL_SNIPPETS, sum(sizes))),
                read.spec,
                read.bundle.tolerance,
                class_indices=read.class_indices,
                batch_sizes=sizes,
            )
            # Taking a step may draw footage, so that is done aside too.
            steps = verifier.steps()
            while (step := await self._aside(lambda: next(steps, None))) is not None:
                at = self._aside if step.side == "reference" else self._device.run
                await at(step.run)
                self.tell(
                    f"verifying {read.spec.model_id}: snippet {verifier.n_done} of "
                    f"{verifier.n_snippets}"
                )
            return verifier.result()
        finally:
            await self._aside(reference.close)

    async def _aside(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def must_be_compared(backends: Sequence[EngineBackend]) -> bool:
    """A file in f32 on the CPU in f32 is itself the reference, and a dry run has none."""
    kind, *_ = backends[0].description.split()
    if kind == "openvino":
        return any(" f32 " not in f"{b.description} " or " as " in b.description for b in backends)
    return kind != "scripted"


def try_out(model: OpenModel) -> None:
    """Hold a model's answers to the contract on a few drawn snippets: shapes, finite numbers.

    Raises:
        BundleError: Says which answer is none.
        DeviceError: The runtime failed.
    """
    spec, who = model.spec, model.description
    (clip,) = procedural(spec, _TRIED_SNIPPETS).clips
    snippets: list[Snippet] = list(clip.snippets())
    features = model.extractor.extract(snippets)
    for feature in features:
        _hold(who, "features", feature.vector, (spec.feature_dim,))
    n_snippets, n_classes = spec.window.window_snippets, len(spec.class_names)
    camera_mean = None if spec.camera_mean is None else spec.camera_mean.default
    rows = [SnippetFeature(i, 0, feature.vector) for i, feature in enumerate(features)]
    windows: list[FeatureWindow] = [
        window_of(rows[:seen], n_snippets, spec.feature_dim, camera_mean)
        for seen in range(1, min(len(rows), n_snippets) + 1)
    ]
    answers: list[CasWindow] = model.localizer.localize(windows)
    for answer in answers:
        _hold(who, "cas", answer.cas, (n_snippets, n_classes))
        _hold(who, "attention", answer.attention, (n_snippets,))
        _hold(who, "video_scores", answer.video_scores, (n_classes,))


def _hold(who: str, what: str, seen: FloatArray, shape: tuple[int, ...]) -> None:
    if seen.shape != shape:
        raise BundleError(f"{who}: {what} are {seen.shape}, wanted {shape}")
    if not np.isfinite(seen).all():
        raise BundleError(f"{who}: {what} hold NaN or infinity, wanted finite numbers")
