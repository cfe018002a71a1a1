"""A whole model in plain numpy, small enough to read: for tests of everything around it.

A frame's red says how much of action 0 is in it, green how much of action 1. The feature is the
snippet's mean colour; the localizer smooths it over three snippets, so that a score really does
change when its right context arrives. What the camera shows all the time, its mean, is
taken out first.
"""

from collections.abc import Sequence

import numpy as np

from engine.grid import Grid
from engine.rounding import as_logged
from engine.spec import (
    CameraMeanSpec,
    EconomySpec,
    FrameGeometry,
    ModelSpec,
    ProposalSpec,
    TrackerSpec,
    WindowSpec,
)
from engine.types import CasWindow, FeatureWindow, FrameBatch, Snippet, SnippetFeature

CLASS_NAMES = ("red", "green")


FULL_LOOK = EconomySpec()


def a_spec(
    *,
    stride_frames: int = 4,
    hop_snippets: int = 1,
    freeze_us: int = 320_000,
    max_gap_us: int = 500_000,
    class_open_scores: tuple[float, ...] = (),
    camera_mean: CameraMeanSpec | None = None,
    economy: EconomySpec = FULL_LOOK,
) -> ModelSpec:
    """Snippets of 0.16 s, windows of 8, 24 remembered."""
    return ModelSpec(
        model_id="scripted@0",
        class_names=CLASS_NAMES,
        feature_dim=3,
        grid=Grid(fps=25, snippet_frames=4, stride_frames=stride_frames),
        geometry=FrameGeometry(resize_px=2, crop_px=2),
        window=WindowSpec(
            window_snippets=8,
            hop_snippets=hop_snippets,
            rescore_snippets=4,
            track_snippets=24,
            max_gap_us=max_gap_us,
        ),
        proposals=ProposalSpec(
            step_us=40_000,
            absolute_levels=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
            relative_levels=(0.2, 0.5, 0.8),
            outer_weight=1.0,
            outer_ratio=0.25,
            video_weight=0.2,
            min_us=200_000,
            soft_nms_sigma=0.3,
            min_peak=0.1,
        ),
        tracker=TrackerSpec(
            open_score=0.4,
            keep_score=0.3,
            freeze_us=freeze_us,
            retract_hops=2,
            nms_tiou=0.1,
            block_tiou=0.2,
            block_cover=0.5,
            class_open_scores=class_open_scores,
        ),
        camera_mean=camera_mean,
        economy=economy,
    )


def a_camera_mean(**changes: object) -> CameraMeanSpec:
    """Black everywhere but at ``red-door``; quick enough to matter within a short test."""
    values = {
        "prior_snippets_known": 40,
        "prior_snippets_new": 10,
        "memory_snippets": 100,
        "default": np.zeros(3, np.float32),
        "cameras": {"red-door": np.array([0.5, 0, 0], np.float32)},
    }
    return CameraMeanSpec(**{**values, **changes})  # type: ignore[arg-type]


class MeanColourExtractor:
    """Snippets → mean colour in [0, 1], float32 (3,), rounded as every extractor's."""

    feature_dim = 3

    def extract(self, snippets: Sequence[Snippet]) -> list[SnippetFeature]:
        return [
            SnippetFeature(
                snippet.index,
                snippet.segment,
                as_logged((snippet.rgb.mean(axis=(0, 1, 2)) / 255).astype(np.float32)),
            )
            for snippet in snippets
        ]


class SmoothingLocalizer:
    """Windows → red and green, averaged over each snippet and its valid neighbours."""

    def localize(self, windows: Sequence[FeatureWindow]) -> list[CasWindow]:
        return [self._one(window) for window in windows]

    def _one(self, window: FeatureWindow) -> CasWindow:
        changed = np.clip(window.features - window.camera_mean, 0, 1) * window.valid[:, None]
        padded = np.pad(changed[:, :2], ((1, 1), (0, 0)))
        weight = np.pad(window.valid.astype(np.float32), 1)[:, None]
        summed = padded[:-2] + padded[1:-1] + padded[2:]
        seen = np.maximum(weight[:-2] + weight[1:-1] + weight[2:], 1)
        cas = (summed / seen).astype(np.float32)
        return CasWindow(
            window.first_index,
            window.segment,
            cas,
            np.ones(len(cas), np.float32),
            cas.max(axis=0),
            window.valid,
        )


def frames_of(pts_us: Sequence[int], reds: Sequence[int], greens: Sequence[int]) -> FrameBatch:
    """2x2 frames of the given colours."""
    rgb = np.zeros((len(pts_us), 2, 2, 3), np.uint8)
    rgb[..., 0] = np.array(reds, np.uint8)[:, None, None]
    rgb[..., 1] = np.array(greens, np.uint8)[:, None, None]
    return FrameBatch(np.array(pts_us, np.int64), rgb, len(pts_us))
