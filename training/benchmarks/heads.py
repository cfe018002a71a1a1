"""What a localization head costs at test time: our heads beside a published peer's, in one run.

Heads take features of a whole video, B = 1, as torch modules and as exported networks in OpenVINO
f32. They are timed in turn, pass by pass, so that other work on the machine slows all alike. On a
busy machine, CPU time with one thread is what can be compared.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import torch

from engine.backends import open_backend
from engine.cas import BackendLocalizer
from engine.grid import Grid
from engine.session import StreamSession
from engine.spec import CameraMeanSpec, FrameGeometry, ModelSpec
from engine.types import FloatArray, SnippetFeature
from training.benchmarks.heads_peers import (
    PEER,
    PUBLISHED_PEERS_MS,
    PUBLISHED_SOURCE,
    TWO_STREAM,
    Head,
    default_heads,
)
from training.export.export import LocalizerModule, localizer_onnx
from training.live_defaults import live_defaults
from training.networks.base import Network

Clock = Literal["wall", "cpu"]

LENGTHS = (320, 750, 2000)
N_CLASSES = 20
GOAL_RATIO = 1 / 3  # of the peer's time, at GOAL_LENGTH
GOAL_LENGTH = 750

_LIVE_GRID = Grid(fps=25, snippet_frames=16, stride_frames=8)
_WARM_UP = 2
_MS = 1000.0
_CLOCKS: Mapping[Clock, Callable[[], float]] = {
    "wall": time.perf_counter,
    "cpu": time.process_time,
}


@dataclass(frozen=True, slots=True)
class HeadTiming:
    """Median times of one head.

    Attributes:
        name: Name of the head.
        feature_dim: D.
        n_parameters: Number of the network's parameters.
        torch_ms: Milliseconds in torch, one for each length.
        openvino_ms: Milliseconds in OpenVINO f32, one for each length.
    """

    name: str
    feature_dim: int
    n_parameters: int
    torch_ms: tuple[float, ...]
    openvino_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class HopCost:
    """Median milliseconds of one hop of a live stream.

    Attributes:
        window_snippets: T of the live window.
        feature_dim: D.
        hop_ms: Time between two hops at real-time pace.
        buffer_ms: Time from a new feature to its window.
        localize_ms: Time from the window to scores, in OpenVINO f32.
        track_ms: Time from scores to revisions of events.
        total_ms: Time of all three steps; it is the median of their sums, not the sum of medians.
    """

    window_snippets: int
    feature_dim: int
    hop_ms: float
    buffer_ms: float
    localize_ms: float
    track_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True)
class HeadCost:
    """All that was measured.

    Attributes:
        lengths: T of each column.
        threads: CPU threads of both runtimes.
        passes: Number of timed passes in a median.
        clock: ``wall``, or ``cpu`` for the process's time on all its CPUs together.
        heads: One row for each head.
        live: Cost of a live stream's hop.
        published: Peer → published milliseconds, one for each length; they are not ours.
    """

    lengths: tuple[int, ...]
    threads: int
    passes: int
    clock: Clock
    heads: tuple[HeadTiming, ...]
    live: HopCost
    published: Mapping[str, tuple[int, ...]] = field(
        default_factory=lambda: dict(PUBLISHED_PEERS_MS)
    )

    def ratio(self, name: str, length: int = GOAL_LENGTH, runtime: str = "torch") -> float:
        """Divide a head's time by the re-stated peer's in the same runtime.

        Args:
            name: Name of the head.
            length: One of ``lengths``.
            runtime: ``torch`` or ``openvino``.
        """
        column = self.lengths.index(length)
        times = {head.name: getattr(head, f"{runtime}_ms")[column] for head in self.heads}
        return float(times[name] / times[PEER])

    def table(self) -> str:
        """Write the result for people, in Markdown."""
        columns = [f"{runtime} T={n}" for runtime in ("torch", "OpenVINO") for n in self.lengths]
        blank = ("-",) * len(self.lengths)
        rows = [
            (
                head.name,
                str(head.feature_dim),
                f"{head.n_parameters / 1e6:.2f}",
                *(f"{ms:.1f}" for ms in (*head.torch_ms, *head.openvino_ms)),
            )
            for head in self.heads
        ]
        rows += [
            (f"{name} ¹", str(TWO_STREAM), "-", *map(str, times), *blank)
            for name, times in self.published.items()
            if len(times) == len(self.lengths)
        ]
        how = f"{self.threads} threads, median of {self.passes} passes"
        lines = [
            f"test-time ms ({self.clock} time), B = 1, fp32, {how}",
            "",
            *markdown(("head", "D", "M parameters", *columns), rows),
            "",
            f"¹ {PUBLISHED_SOURCE}: not comparable with the rows above, which share one run.",
        ]
        if GOAL_LENGTH in self.lengths:
            lines += ["", *self._ratios()]
        return "\n".join([*lines, "", self._hop()])

    def _ratios(self) -> Iterator[str]:
        for head in self.heads:
            if head.name != PEER:
                torch_ratio = self.ratio(head.name)
                openvino_ratio = self.ratio(head.name, runtime="openvino")
                yield (
                    f"{head.name}: {torch_ratio:.3f} of {PEER} at T={GOAL_LENGTH} in torch, "
                    f"{openvino_ratio:.3f} in OpenVINO (goal for the default: {GOAL_RATIO:.3f})"
                )

    def _hop(self) -> str:
        live = self.live
        return (
            f"live, a hop of {live.hop_ms:.0f} ms, window {live.window_snippets} x "
            f"{live.feature_dim}: {live.total_ms:.2f} ms (buffer {live.buffer_ms:.2f}, localize "
            f"{live.localize_ms:.2f}, track {live.track_ms:.2f}), "
            f"{100 * live.total_ms / live.hop_ms:.2f} % of real time"
        )


def head_cost(
    *,
    lengths: Sequence[int] = LENGTHS,
    heads: Sequence[Head] | None = None,
    passes: int = 7,
    hops: int = 300,
    threads: int = 2,
    clock: Clock = "wall",
    live: Head | None = None,
) -> HeadCost:
    """Time every head, then a live stream's hop with the live default.

    Args:
        lengths: Values of T to time at.
        heads: The heads to time; None takes `default_heads`.
        passes: Number of timed passes of each, after two that are not counted.
        hops: Number of timed hops of the live stream.
        threads: CPU threads of both runtimes.
        clock: Clock of the heads; the live stream's hop is measured in wall time.
        live: The live stream's head; None takes the first of the defaults.

    Raises:
        DeviceError: The runtime is missing or failed.
    """
    chosen = default_heads() if heads is None else tuple(heads)
    with torch_threads(threads), TemporaryDirectory() as folder:
        timed = _timed_heads(chosen, tuple(lengths), passes, threads, _CLOCKS[clock], Path(folder))
        hop = live_hop_cost(live or default_heads()[0], Path(folder), hops, threads)
    return HeadCost(tuple(lengths), threads, passes, clock, timed, hop)


def live_hop_cost(head: Head, folder: Path, hops: int, threads: int) -> HopCost:
    """Push random features through the daemon's own session, one at a time.

    Args:
        head: The head; its network has random weights.
        folder: Folder for the exported network.
        hops: Number of hops timed, once the window and the track are full.
        threads: CPU threads of OpenVINO.
    """
    spec = _live_spec(head.feature_dim)
    session = StreamSession("bench", "0", spec)
    path = folder / "live.onnx"
    path.write_bytes(localizer_onnx(_network(head), head.feature_dim))
    backend = open_backend("openvino", path, precision="f32", threads=threads)
    localizer = BackendLocalizer(backend)
    n_filling = spec.window.track_snippets
    rows = _features(n_filling + hops, head.feature_dim)
    spent: list[tuple[float, float, float]] = []
    try:
        for index, row in enumerate(rows):
            started_s = time.perf_counter()
            windows = session.buffer([SnippetFeature(index, 0, row)])
            buffered_s = time.perf_counter()
            scored = localizer.localize(windows)
            localized_s = time.perf_counter()
            session.track(scored)
            tracked_s = time.perf_counter()
            spent.append(
                (buffered_s - started_s, localized_s - buffered_s, tracked_s - localized_s)
            )
    finally:
        backend.close()
    times_ms = np.array(spent[n_filling:]) * _MS
    buffer_ms, localize_ms, track_ms = np.median(times_ms, axis=0).tolist()
    return HopCost(
        window_snippets=spec.window.window_snippets,
        feature_dim=head.feature_dim,
        hop_ms=spec.window.hop_snippets * spec.grid.stride_us / _MS,
        buffer_ms=buffer_ms,
        localize_ms=localize_ms,
        track_ms=track_ms,
        total_ms=float(np.median(times_ms.sum(axis=1))),
    )


def _timed_heads(
    heads: Sequence[Head],
    lengths: tuple[int, ...],
    passes: int,
    threads: int,
    clock: Callable[[], float],
    folder: Path,
) -> tuple[HeadTiming, ...]:
    networks = [_network(head) for head in heads]
    calls, backends = [], []
    for number, (head, network) in enumerate(zip(heads, networks, strict=True)):
        path = folder / f"{number}.onnx"
        path.write_bytes(localizer_onnx(network, head.feature_dim))
        backend = open_backend("openvino", path, precision="f32", threads=threads)
        backends.append(backend)
        calls += [torch_call(network), backend.run]
    try:
        by_length = [_medians_ms(calls, heads, length, passes, clock) for length in lengths]
    finally:
        for backend in backends:
            backend.close()
    return tuple(
        HeadTiming(
            name=head.name,
            feature_dim=head.feature_dim,
            n_parameters=sum(parameter.numel() for parameter in network.parameters()),
            torch_ms=tuple(column[2 * number] for column in by_length),
            openvino_ms=tuple(column[2 * number + 1] for column in by_length),
        )
        for number, (head, network) in enumerate(zip(heads, networks, strict=True))
    )


def _medians_ms(
    calls: Sequence[Callable[[dict[str, FloatArray]], object]],
    heads: Sequence[Head],
    length: int,
    passes: int,
    clock: Callable[[], float],
) -> list[float]:
    """Time calls, two for each head, on features (1, ``length``, D); give their medians in ms."""
    given = [random_video(heads[number // 2].feature_dim, length) for number in range(len(calls))]
    spent = np.zeros((_WARM_UP + passes, len(calls)))
    for row in spent:
        for number, (call, inputs) in enumerate(zip(calls, given, strict=True)):
            started_s = clock()
            call(inputs)
            row[number] = clock() - started_s
    return [float(median) * _MS for median in np.median(spent[_WARM_UP:], axis=0)]


def torch_call(network: Network) -> Callable[[dict[str, FloatArray]], object]:
    """Make a call that takes inputs as OpenVINO does: (1, T, D), (1, T), (1, D)."""
    module = LocalizerModule(network).eval()

    def call(inputs: dict[str, FloatArray]) -> object:
        """Run the module on (1, T, D), (1, T) and (1, D)."""
        with torch.inference_mode():
            return module(*(torch.from_numpy(array) for array in inputs.values()))

    return call


def random_video(feature_dim: int, length: int) -> dict[str, FloatArray]:
    """Make the localizer's inputs: features (1, T, D), valid (1, T), background (1, D)."""
    return {
        "features": _features(length, feature_dim)[None],
        "valid": np.ones((1, length), np.float32),
        "background": np.zeros((1, feature_dim), np.float32),
    }


def _features(n_rows: int, feature_dim: int) -> FloatArray:
    """Draw random features that are not negative, float32 (T, D)."""
    draws = np.random.default_rng(0)
    return np.abs(draws.standard_normal((n_rows, feature_dim))).astype(np.float32)


def _network(head: Head) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = head.build(head.feature_dim, N_CLASSES)
    network.eval()
    return network


def _live_spec(feature_dim: int) -> ModelSpec:
    live = live_defaults(_LIVE_GRID)
    # Random weights give scores without contrast; low thresholds keep the tracker at work.
    tracker = replace(live["tracker"], open_score=0.0, keep_score=0.0)
    return ModelSpec(
        model_id="bench",
        class_names=tuple(f"class {label}" for label in range(N_CLASSES)),
        feature_dim=feature_dim,
        grid=_LIVE_GRID,
        geometry=FrameGeometry(resize_px=160, crop_px=160),
        window=live["window"],
        proposals=live["proposals"],
        tracker=tracker,
        camera_mean=CameraMeanSpec(
            prior_snippets_known=1,
            prior_snippets_new=1,
            memory_snippets=1000,
            default=np.zeros(feature_dim, np.float32),
            cameras={},
        ),
    )


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Give the lines of a Markdown table."""
    yield f"| {' | '.join(header)} |"
    yield f"|---|{'---:|' * (len(header) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch have so many threads in a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
