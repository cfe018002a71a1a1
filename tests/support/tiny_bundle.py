"""A bundle of two real ONNX networks, small enough to read, for daemons that run as processes.

The feature is the snippet's mean colour; red and green are the scores of the two classes.
"""

from dataclasses import replace
from pathlib import Path

import onnx
import onnx.parser

from engine.bundle.model_bundle import BackboneReference, ModelCard, Pixels, write_bundle
from engine.grid import Grid
from engine.spec import CameraMeanSpec
from tests.support.scripted import a_spec

_BACKBONE = """
<ir_version: 10, opset_import: ["": 18]>
backbone (uint8[B,L,H,W,3] snippets) => (float[B,3] features) {
  pixels = Cast<to = 1>(snippets)
  frames_rows_columns = Constant<value = int64[3] {1, 2, 3}>()
  mean = ReduceMean<keepdims = 0>(pixels, frames_rows_columns)
  white = Constant<value = float {255.0}>()
  features = Div(mean, white)
}
"""

_LOCALIZER = """
<ir_version: 10, opset_import: ["": 18]>
localizer (float[B,T,3] features, float[B,T] valid)
    => (float[B,T,2] cas, float[B,T] attention, float[B,2] video_scores) {
  zero = Constant<value = int64[1] {0}>()
  one = Constant<value = int64[1] {1}>()
  two = Constant<value = int64[1] {2}>()
  red_green = Slice(features, zero, two, two)
  mask = Unsqueeze(valid, two)
  cas = Mul(red_green, mask)
  attention = ReduceMax<keepdims = 0>(cas, two)
  video_scores = ReduceMax<keepdims = 0>(cas, one)
}
"""


_NAN = """
  nothing = Sub(mask, mask)
  undefined = Div(nothing, nothing)
  seen = Mul(red_green, mask)
  cas = Add(seen, undefined)
"""

_INVERTED = """
  seen = Mul(red_green, mask)
  cas = Sub(mask, seen)
"""

_CENTRED = """
  a_row = Unsqueeze(background, one)
  centred = Sub(features, a_row)
"""


def write_tiny_bundle(
    folder: Path,
    *,
    camera_mean: CameraMeanSpec | None = None,
    backbone_of: str | None = None,
    version: int = 1,
    grid: Grid | None = None,
    is_nan: bool = False,
    is_inverted: bool = False,
) -> Path:
    """The bundle, with the sizes of ``a_spec``; gives its folder back.

    Args:
        folder: Where.
        background: With one, its localizer takes camera means.
        backbone_of: The pulled bundle whose backbone it uses; None: it has its own.
        version: Of two that differ in nothing else, each is another bundle.
        grid: Its snippets; None: those of ``a_spec``.
        is_nan: Its localizer answers NaN, whatever it is shown.
        is_inverted: Its scores are high where they should be low.
    """
    own, card = backbone().SerializeToString(), tiny_card()
    return write_bundle(
        folder,
        replace(card, version=version, timeline=grid or card.timeline),
        backbone=own if backbone_of is None else BackboneReference(backbone_of),
        localizer=localizer(
            takes_background=camera_mean is not None, is_nan=is_nan, is_inverted=is_inverted
        ).SerializeToString(),
        camera_mean=camera_mean,
    )


def write_fixed_bundle(folder: Path) -> None:
    """The tiny bundle with the frame size fixed, as every exported backbone has it."""
    card, model = tiny_card(), backbone()
    sizes = (card.timeline.snippet_frames, card.geometry.crop_px, card.geometry.crop_px)
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim[1:4], sizes, strict=True):
        dim.dim_value = size
    networks = (model.SerializeToString(), localizer().SerializeToString())
    write_bundle(folder, card, backbone=networks[0], localizer=networks[1])


def tiny_card() -> ModelCard:
    spec = a_spec()
    return ModelCard(
        name="tiny",
        version=1,
        source="made for tests",
        precision="f32",
        feature_dim=spec.feature_dim,
        pixels=Pixels("rgb", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
        timeline=spec.grid,
        geometry=spec.geometry,
        window=spec.window,
        proposals=spec.proposals,
        tracker=spec.tracker,
        class_names=spec.class_names,
    )


def backbone() -> onnx.ModelProto:
    return _checked(_BACKBONE)


def localizer(
    *, takes_background: bool = False, is_nan: bool = False, is_inverted: bool = False
) -> onnx.ModelProto:
    text = _LOCALIZER
    if is_inverted:
        text = text.replace("  cas = Mul(red_green, mask)\n", _INVERTED)
    if is_nan:
        text = text.replace("  cas = Mul(red_green, mask)\n", _NAN)
    if not takes_background:
        return _checked(text)
    text = text.replace("valid)\n", "valid, float[B,3] background)\n")
    centred = "one = Constant<value = int64[1] {1}>()\n" + _CENTRED
    text = text.replace("one = Constant<value = int64[1] {1}>()\n", centred)
    return _checked(text.replace("Slice(features,", "Slice(centred,"))


def _checked(text: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model, full_check=True)
    return model
