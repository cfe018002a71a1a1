"""Is the exported network the trained one? f32 compares numbers, lower precision also events."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from engine.backends import open_backend
from engine.backends.base import EngineBackend
from engine.bundle.model_bundle import ModelBundle
from engine.judging.agreement import Agreement, agreement
from engine.proposals import localize_whole_video
from engine.scores import ScoredSnippets
from engine.spec import ModelSpec
from engine.types import FloatArray, Proposal
from training.export.export import OUTPUTS, LocalizerModule
from training.learning.batches import places_of
from training.learning.checkpoints import TrainedNetwork
from training.records import VideoRecord

LENGTHS = (24, 48, 320)
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One input of the localizer.

    Attributes:
        name: What the window is, in words.
        features: float32 (T, D), zero where not valid.
        valid: float32 (T,), 1 where there is a snippet.
        camera_mean: float32 (D,).
    """

    name: str
    features: FloatArray
    valid: FloatArray
    camera_mean: FloatArray


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far one output of one window is off.

    Attributes:
        window: The window's name.
        length: T.
        output: Name of the output tensor.
        max_error: Largest absolute difference.
        cosine: Cosine of both outputs as vectors; 1 where both are zero.
    """

    window: str
    length: int
    output: str
    max_error: float
    cosine: float


@dataclass(frozen=True, slots=True)
class ParityReport:
    """What was compared.

    Attributes:
        description: What torch was compared with.
        deviations: One for each window and output.
        events: How the events of f32 (the reference) and of a lower precision (the candidate)
            agree; None if they were not compared.
    """

    description: str
    deviations: tuple[Deviation, ...]
    events: Agreement | None = None

    @property
    def max_error(self) -> float:
        """Largest error of all windows and outputs; NaN if any is."""
        return float(np.max([d.max_error for d in self.deviations], initial=0.0))

    @property
    def holds(self) -> bool:
        """Whether every error is within ``TOLERANCE``."""
        return self.max_error <= TOLERANCE

    def table(self) -> str:
        """Write a Markdown table, and the agreement of events below it."""
        lines = [
            f"torch against {self.description}",
            "",
            "| window | T | output | max abs error | cosine |",
            "|---|---:|---|---:|---:|",
        ]
        lines += [
            f"| {d.window} | {d.length} | {d.output} | {d.max_error:.2e} | {d.cosine:.8f} |"
            for d in self.deviations
        ]
        verdict = "holds" if self.holds else "does not hold"
        lines += ["", f"largest error {self.max_error:.1e}: {verdict} (wanted {TOLERANCE:.0e})"]
        if self.events is not None:
            lines += ["", f"with f32 for the reference, {self.events.text}"]
        return "\n".join(lines)


def parity(
    run: TrainedNetwork,
    localizer: Path,
    records: Sequence[VideoRecord],
    *,
    lengths: Sequence[int] = LENGTHS,
    precision: str = "f32",
    seed: int = 0,
) -> ParityReport:
    """Compare torch with OpenVINO on random and real windows, whole and partly valid.

    Args:
        run: What was trained.
        localizer: ONNX file of what was exported.
        records: Videos that real windows come from; may be empty.
        lengths: T of the windows.
        precision: Precision of OpenVINO.
        seed: Seed of the random windows.

    Raises:
        DeviceError: The runtime is missing or failed.
        BundleError: The file is no network that OpenVINO can run.
    """
    backend = open_backend("openvino", localizer, precision=precision)
    module = LocalizerModule(run.network).eval()
    rng = np.random.default_rng(seed)
    try:
        deviations = [
            deviation
            for length in lengths
            for window in windows_of(run, records, length, rng)
            for deviation in _deviations(module, backend, window)
        ]
        return ParityReport(backend.description, tuple(deviations))
    finally:
        backend.close()


def with_events(
    run: TrainedNetwork, bundle: ModelBundle, records: Sequence[VideoRecord], precision: str
) -> ParityReport:
    """Compare a run with its bundle as ``parity`` does, below f32 also in events.

    Args:
        run: What was trained.
        bundle: What was exported from it.
        records: Videos that windows and events come from; may be empty.
        precision: Precision of OpenVINO.
    """
    report = parity(run, bundle.localizer_path, records, precision=precision)
    if precision == "f32" or not records:
        return report
    path = bundle.localizer_path
    return replace(report, events=event_agreement(path, run, records, bundle.spec, precision))


def windows_of(
    run: TrainedNetwork, records: Sequence[VideoRecord], length: int, rng: np.random.Generator
) -> list[Window]:
    """Make random and real windows of T = ``length``.

    Each of them comes whole, without its beginning, and with holes.
    """
    camera_mean = run.camera_means[""]
    noise = np.abs(rng.standard_normal((length, run.feature_dim))).astype(np.float32)
    sources = [("random", noise, camera_mean)]
    rows = [record for record in records if len(record.features)]
    if rows:
        record = rows[int(rng.integers(len(rows)))]
        repeated = np.resize(record.features, (length, run.feature_dim))
        sources.append((f"real {record.name}", repeated, run.camera_mean(record.camera)))
    young = np.arange(length) >= length // 3
    holes = rng.random(length) < 0.7  # noqa: PLR2004 - most of it is there
    masks = (("", np.ones(length, bool)), (", young", young), (", holes", holes))
    return [
        Window(f"{name}{how}", features * mask[:, None], mask.astype(np.float32), vector)
        for name, features, vector in sources
        for how, mask in masks
    ]


def event_agreement(
    localizer: Path,
    run: TrainedNetwork,
    records: Sequence[VideoRecord],
    spec: ModelSpec,
    precision: str,
) -> Agreement:
    """Compare the events that f32 and a lower precision find in whole videos.

    Args:
        localizer: ONNX file of the exported network.
        run: The run whose camera means are used.
        records: The videos.
        spec: It says how proposals are made, and from which score on an event opens.
        precision: The lower precision.
    """
    exact = _events(localizer, run, records, spec, "f32")
    lower = _events(localizer, run, records, spec, precision)
    return agreement(zip(exact, lower, strict=True))


def _deviations(
    module: LocalizerModule, backend: EngineBackend, window: Window
) -> list[Deviation]:
    given = {
        "features": window.features[None],
        "valid": window.valid[None],
        "background": window.camera_mean[None],
    }
    with torch.no_grad():
        wanted = module(*(torch.from_numpy(array) for array in given.values()))
    seen = backend.run(given)
    return [
        _deviation(window, output, tensor.numpy(), np.asarray(seen[output], np.float32))
        for output, tensor in zip(OUTPUTS, wanted, strict=True)
    ]


def _deviation(window: Window, output: str, wanted: FloatArray, seen: FloatArray) -> Deviation:
    """Compare two tensors of one shape (1, ...)."""
    first, second = wanted.astype(np.float64).ravel(), seen.astype(np.float64).ravel()
    norms = float(np.linalg.norm(first) * np.linalg.norm(second))
    cosine = float(first @ second) / norms if norms else float(np.array_equal(first, second))
    error = float(np.abs(first - second).max())
    return Deviation(window.name, len(window.valid), output, error, cosine)


def _events(
    localizer: Path,
    run: TrainedNetwork,
    records: Sequence[VideoRecord],
    spec: ModelSpec,
    precision: str,
) -> list[list[Proposal]]:
    backend = open_backend("openvino", localizer, precision=precision)
    try:
        return [
            _video_events(backend, run, record, spec) for record in records if len(record.features)
        ]
    finally:
        backend.close()


def _video_events(
    backend: EngineBackend, run: TrainedNetwork, record: VideoRecord, spec: ModelSpec
) -> list[Proposal]:
    places = places_of(record.indices)
    features = np.zeros((1, int(places[-1]) + 1, run.feature_dim), np.float32)
    valid = np.zeros(features.shape[:2], np.float32)
    features[0, places], valid[0, places] = record.features, 1
    camera_mean = run.camera_mean(record.camera)[None]
    answer = backend.run({"features": features, "valid": valid, "background": camera_mean})
    scores = (
        answer["cas"][0].astype(np.float32) * answer["attention"][0].astype(np.float32)[:, None]
    )
    track = ScoredSnippets(0, 0, scores)
    return [
        proposal
        for class_index in range(len(run.class_names))
        for proposal in localize_whole_video(track, class_index, spec.grid, spec.proposals)
        if proposal.score >= spec.tracker.open_score
    ]
