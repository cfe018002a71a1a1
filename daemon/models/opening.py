"""Configuration → an open, warm, verified model, while cameras are being served.

Slow work is done in a thread of its own ("aside"): reading and hashing the bundle, choosing a
precision, building plans, compiling for the CPU, and the reference's part of a verification. Some
work must be done where the model will run: opening it on a GPU, warming it up, and its own part of
the verification. That goes to the device thread in short steps, between the batches of the
cameras.

If the task that waits for a model is cancelled, what was opened for it is closed again.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import structlog

from daemon.config import ModelConfig
from daemon.device.thread import Device
from daemon.models.choosing import Telling, settled
from daemon.models.reading import (
    OpenModel,
    ReadModel,
    build_plans,
    must_be_compared,
    open_read,
    read_model,
    reference_read,
)
from daemon.models.slot import ServingStatus
from engine.backends.options import OnLog, OnProgress
from engine.errors import BundleError
from engine.types import CasWindow, FeatureWindow, FloatArray, Snippet, SnippetFeature
from engine.verification.footage import PROCEDURAL_SNIPPETS, procedural
from engine.verification.verifier import Networks, Verification, Verifier, sizes_to_try
from engine.windows import window_of

R = TypeVar("R")

Tell = Callable[[str], None]

# Two are enough to see that a network answers, and that the rows of a call do not mix.
_TRIED_SNIPPETS = 2

# The log level at which a runtime's messages are passed on. "verbose" is left out, as one build
# says some 10^5 lines of that; `s2netd engine build --verbose` shows them.
_LEVELS = {
    "internal_error": logging.WARNING,
    "error": logging.WARNING,
    "warning": logging.WARNING,
    "info": logging.DEBUG,
}


class _GivenUpError(Exception):
    """Ends the build of a plan, or a choice, that nobody waits for any more."""


@dataclass(frozen=True, slots=True)
class GpuSteps:
    """The steps that need a GPU; a test puts others in their place.

    Attributes:
        build: Puts a model's plans into the cache; see ``build_plans``.
        open: Opens a model from its plans, on the device thread; see ``open_read``.
    """

    build: Callable[[ReadModel, OnProgress, OnLog], None] = build_plans
    open: Callable[[ReadModel, OnLog], OpenModel] = open_read


class ModelOpener:
    """Opens models so that they can serve, one at a time.

    Args:
        device: Where they will run.
        status: Told which model is being opened or verified.
        tell: Told of each step in words, in the event loop.
        log: Warnings and errors of a runtime are logged here.
        gpu: The steps that need a GPU; by default those of ``daemon.models.reading``.

    Attributes:
        tell: The same; an empty text tells that no model is on its way any more.
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
        """Wait until the models that were given up are closed."""
        leftover = self._leftover
        if leftover is None:
            return
        await asyncio.wait({leftover})  # if this wait is cancelled, a later one waits again
        self._leftover = None
        if (error := leftover.exception()) is not None:
            self._note("error", f"closing what was given up: {error}")

    def close(self) -> None:
        """Wait for the work aside, and end its thread."""
        self._thread.shutdown(wait=True)

    async def read(self, config: ModelConfig) -> ReadModel:
        """Read and verify a bundle; see ``read_model`` for what it raises."""
        return await self._aside(lambda: read_model(config))

    async def open(self, read: ReadModel) -> OpenModel:
        """Build plans if need be, open the model, warm it up, and verify it unless told not to.

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
            read = await self._settled(read, given_up)
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
            # A task of its own, for this one may be cancelled again, and a drain must not wait for
            # a build.
            self._leftover = asyncio.create_task(self._clean_up(opened), name="clean up")
            raise
        return model

    async def _clean_up(self, opened: list[OpenModel]) -> None:
        # Wait for both threads first, as one of them may be opening the model at this moment.
        await self._aside(lambda: None)
        await self._device.run(lambda: None)
        await self.discard(*opened)

    async def discard(self, *models: OpenModel) -> None:
        """Close models, each on the device thread."""
        for model in models:
            await self._device.run(model.close)

    async def _settled(self, read: ReadModel, given_up: threading.Event) -> ReadModel:
        """The model in the precision that is best here; see ``settled``."""
        loop = asyncio.get_running_loop()

        def step(words: str) -> None:
            if given_up.is_set():
                raise _GivenUpError
            loop.call_soon_threadsafe(
                self.tell, f"choosing a precision for {read.spec.model_id}: {words}"
            )

        def note(words: str) -> None:
            loop.call_soon_threadsafe(
                lambda: self._log.warning("model.precision_note", reason=words)
            )

        return await self._aside(lambda: settled(read, Telling(note, step)))

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
                raise _GivenUpError  # ends the build, and the cache keeps nothing of it
            share = f"{phase}: {n_done} of {n_steps}"
            loop.call_soon_threadsafe(self.tell, f"building {read.spec.model_id}: {share}")

        await self._aside(lambda: self._gpu.build(read, on_progress, on_log))
        # A GPU's context belongs to the thread that opens it.
        await self._device.run(lambda: opened.append(self._gpu.open(read, on_log)))

    def _note(self, severity: str, message: str) -> None:
        self._log.log(
            _LEVELS[severity], "model.runtime_said", severity=severity, message=message.strip()
        )

    async def _verify(self, read: ReadModel, model: OpenModel) -> None:
        await self._device.run(lambda: try_out(model))
        if read.is_compared or not must_be_compared(model.backends):
            return
        verification = await self.compare(read, model)
        if not verification.holds:
            raise BundleError(
                f"{model.description} strays from {verification.reference}: "
                + "; ".join(verification.reasons)
            )

    async def compare(self, read: ReadModel, model: OpenModel) -> Verification:
        """Compare an open model with its reference: its bundle in f32 on the CPU.

        Raises:
            BundleError: A network does not keep the contract.
            DeviceError: A backend could not be opened, or failed.
        """
        sizes = sizes_to_try(read.config.backend, read.config.max_batch)
        reference = await self._aside(lambda: open_read(reference_read(read)))
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
            # Making a step may draw footage, so it is done aside too.
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


def try_out(model: OpenModel) -> None:
    """Check a model's answers to a few drawn snippets: their shapes, and that they are finite.

    Raises:
        BundleError: An answer has another shape, or a number that is not finite; names it.
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
    """Check that ``seen``, float32 (...), has this shape and finite numbers only."""
    if seen.shape != shape:
        raise BundleError(f"{who}: {what} are {seen.shape}, wanted {shape}")
    if not np.isfinite(seen).all():
        raise BundleError(f"{who}: {what} hold NaN or infinity, wanted finite numbers")
