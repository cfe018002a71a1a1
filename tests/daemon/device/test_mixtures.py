"""Whatever cameras share a call, everyone gets what a call of one would have given."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.calls import RunningCalls
from daemon.clock import SystemClock
from daemon.device.requests import BatchPolicy
from daemon.device.thread import Device
from daemon.metrics import Metrics
from engine.backends import open_backend
from engine.backends.base import EngineBackend, Signature, Tensor, TensorSpec
from engine.backends.options import BackendOptions
from engine.backends.scripted import ScriptedBackend
from engine.cas import BackendLocalizer
from engine.features import BackendFeatureExtractor
from engine.types import CasWindow, FeatureWindow, Snippet, SnippetFeature, Span
from tests.support.error_bounds import FUNCTION_ROUNDINGS, HALF_ULP, gamma
from tests.support.tiny_bundle import backbone, localizer

L, SIDE, T, D, C = 4, 2, 8, 3, 2

SNIPPETS_IN = (TensorSpec("snippets", (None, L, SIDE, SIDE, 3), "uint8"),)
FEATURES_OUT = (TensorSpec("features", (None, D), "float32"),)
WINDOWS_IN = (
    TensorSpec("features", (None, T, D), "float32"),
    TensorSpec("valid", (None, T), "float32"),
)
CAS_OUT = (
    TensorSpec("cas", (None, T, C), "float32"),
    TensorSpec("attention", (None, T), "float32"),
    TensorSpec("video_scores", (None, C), "float32"),
)


class MatrixBackend:
    """All rows in one matrix product, whose sums differ a little with the number of rows."""

    description = "matrix"

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        rng = np.random.default_rng(0)
        n_in = L * SIDE * SIDE * 3 if signature.inputs == SNIPPETS_IN else T * D
        self._weights = {
            spec.name: rng.normal(size=(n_in, int(np.prod(spec.shape[1:])))).astype(np.float32)
            for spec in signature.outputs
        }

    def run(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        given_rows = tensors[self.signature.inputs[0].name].astype(np.float32)
        rows = given_rows.reshape(len(given_rows), -1) / 255
        return {
            spec.name: np.tanh(rows @ self._weights[spec.name]).reshape(-1, *spec.shape[1:])
            for spec in self.signature.outputs
        }

    def most_apart(self) -> float:
        """By how much two of its answers to one row may differ, however their sums were taken.

        Each is off by at most gamma_n times the weights' magnitudes, for no input is larger than
        1; tanh is nowhere steeper than 1, and rounds its answers, of at most 1, itself.
        """
        return max(
            2 * (gamma(len(weights)) * float(np.abs(weights).sum(axis=0).max()))
            + 2 * gamma(FUNCTION_ROUNDINGS)
            for weights in self._weights.values()
        )

    def warm_up(self) -> None:
        """Nothing to warm."""

    def close(self) -> None:
        """Nothing to free."""


def scripted() -> tuple[EngineBackend, EngineBackend]:
    def colour(row: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"features": row["snippets"].mean(axis=(0, 1, 2)).astype(np.float32) / 255}

    def score(row: Mapping[str, Tensor]) -> dict[str, Tensor]:
        cas = row["features"][:, :C] * row["valid"][:, None]
        return {"cas": cas, "attention": cas.max(axis=1), "video_scores": cas.max(axis=0)}

    return (
        ScriptedBackend(Signature(SNIPPETS_IN, FEATURES_OUT), colour),
        ScriptedBackend(Signature(WINDOWS_IN, CAS_OUT), score),
    )


def matrices() -> tuple[MatrixBackend, MatrixBackend]:
    return (
        MatrixBackend(Signature(SNIPPETS_IN, FEATURES_OUT)),
        MatrixBackend(Signature(WINDOWS_IN, CAS_OUT)),
    )


@pytest.fixture(scope="module")
def on_openvino(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[EngineBackend, EngineBackend]]:
    pytest.importorskip("openvino")
    folder: Path = tmp_path_factory.mktemp("networks")
    onnx.save(backbone(), folder / "backbone.onnx")
    onnx.save(localizer(), folder / "localizer.onnx")
    side_by_side = BackendOptions(max_batch=16)
    first, second = (
        open_backend("openvino", folder / f"{name}.onnx", threads=2, options=side_by_side)
        for name in ("backbone", "localizer")
    )
    yield first, second
    first.close()
    second.close()


@st.composite
def mixtures(draw: st.DrawFn) -> tuple[BatchPolicy, list[list[tuple[int, int]]]]:
    """A policy, and each camera's chunks as (snippets, windows)."""
    policy = BatchPolicy(
        draw(st.integers(1, 16)),
        draw(st.sampled_from([0.0, 0.0, 0.001])),
        draw(st.integers(1, 5)),
    )
    chunk = st.tuples(st.integers(0, 9), st.integers(0, 5))
    return policy, draw(st.lists(st.lists(chunk, min_size=1, max_size=3), min_size=1, max_size=8))


Chunk = tuple[list[Snippet], list[FeatureWindow]]
Answer = tuple[list[SnippetFeature], list[CasWindow]]


def footage(cameras: list[list[tuple[int, int]]]) -> list[list[Chunk]]:
    rng = np.random.default_rng(0)

    def snippet(i: int) -> Snippet:
        rgb = rng.integers(0, 256, (L, SIDE, SIDE, 3), np.uint8)
        return Snippet(i, 0, Span(i, i + 1), rgb)

    def window(i: int) -> FeatureWindow:
        features = rng.uniform(0, 9, (T, D)).astype(np.float32)
        return FeatureWindow(i, 0, features, rng.random(T) < 0.8, np.zeros(D, np.float32))

    return [
        [([snippet(i) for i in range(n)], [window(i) for i in range(m)]) for n, m in chunks]
        for chunks in cameras
    ]


async def through_the_device(
    policy: BatchPolicy,
    extractor: BackendFeatureExtractor,
    localizer_: BackendLocalizer,
    cameras: list[list[Chunk]],
) -> list[list[Answer]]:
    device = Device(policy, Metrics(), RunningCalls(SystemClock()))

    async def one(name: str, chunks: list[Chunk]) -> list[Answer]:
        return [
            (
                await device.extract(extractor, snippets, camera=name),
                await device.localize(localizer_, windows, camera=name),
            )
            for snippets, windows in chunks
        ]

    served = asyncio.create_task(device.serve())
    try:
        asked = (one(f"camera {i}", chunks) for i, chunks in enumerate(cameras))
        return await asyncio.gather(*asked)
    finally:
        served.cancel()
        await asyncio.wait({served})
        device.close()


def check(
    networks: tuple[EngineBackend, EngineBackend],
    mixture: tuple[BatchPolicy, list[list[tuple[int, int]]]],
    tolerance: float,
    feature_tolerance: float = 0,
) -> None:
    policy, sizes = mixture
    cameras = footage(sizes)
    extractor, localizer_ = BackendFeatureExtractor(networks[0], D), BackendLocalizer(networks[1])

    together = asyncio.run(through_the_device(policy, extractor, localizer_, cameras))

    for chunks, answers in zip(cameras, together, strict=True):
        for (snippets, windows), (features, cas_windows) in zip(chunks, answers, strict=True):
            alone = [extractor.extract([snippet])[0] for snippet in snippets]
            assert [f.index for f in alone] == [f.index for f in features]
            for expected, actual in zip(alone, features, strict=True):
                np.testing.assert_allclose(actual.vector, expected.vector, 0, feature_tolerance)
            for window, actual_cas in zip(windows, cas_windows, strict=True):
                expected_cas = localizer_.localize([window])[0]
                assert window.first_index == actual_cas.first_index
                np.testing.assert_array_equal(actual_cas.valid, window.valid)
                for name in ("cas", "attention", "video_scores"):
                    np.testing.assert_allclose(
                        getattr(actual_cas, name), getattr(expected_cas, name), 0, tolerance
                    )


@given(mixtures())
@settings(max_examples=25)
def test_any_mixture_answers_as_calls_of_one_do(mixture):
    check(scripted(), mixture, tolerance=0)


@pytest.mark.numeric
@given(mixtures())
@settings(max_examples=25)
def test_a_network_that_computes_rows_together_stays_within_its_tolerance(mixture):
    first, second = matrices()
    # Features, of at most 1, are rounded to float16 as well, each of two that are compared.
    rounded_apart = first.most_apart() + 2 * gamma(1, HALF_ULP["float16"])
    check((first, second), mixture, second.most_apart(), rounded_apart)


# Exact on any CPU: every row runs alone, in one network or in another compiled from the same file.
@pytest.mark.numeric
@pytest.mark.openvino
@given(mixture=mixtures())
@settings(max_examples=15)
def test_any_mixture_answers_as_calls_of_one_do_on_openvino(on_openvino, mixture):
    check(on_openvino, mixture, tolerance=0)
