"""A run → ``localizer.onnx`` → a bundle on a base bundle's backbone."""

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from typing_extensions import override

from engine.bundle.model_bundle import BackboneReference, ModelBundle, ModelCard, write_bundle
from engine.bundle.room import make_room
from engine.errors import DataError
from engine.published.models import MODELS
from engine.spec import CameraMeanSpec
from training.feature_files import manifest_of
from training.learning.checkpoints import TrainedNetwork
from training.networks.base import Network
from training.precision.calibration_clips import Clips
from training.precision.convert import Precision, check_is_f32, described, lowered, original_of
from training.precision.int8 import OnProgress

OPSET = 18
INPUTS = ("features", "valid", "background")
OUTPUTS = ("cas", "attention", "video_scores")
_TRACED = (2, 48)  # B and T of the example that is traced; both are free in the file


@dataclass(frozen=True, slots=True)
class CameraMeanPace:
    """How fast a camera mean moves in the daemon; see ``CameraMeanSpec``.

    The defaults are starting points at a hop of .32 s. The mean of a camera that was trained on
    counts like an hour of footage, that of a new camera like ten seconds. What was seen an hour
    ago fades.

    Attributes:
        prior_snippets_known: As how many snippets the mean of a known camera counts at first.
        prior_snippets_new: As how many snippets the default mean counts for a new camera.
        memory_snippets: Over how many snippets the mean forgets.
    """

    prior_snippets_known: int = 11_250
    prior_snippets_new: int = 32
    memory_snippets: int = 11_250


class LocalizerModule(nn.Module):
    """A network with the inputs and outputs of ``localizer.onnx``.

    Args:
        network: In evaluation mode; it takes features minus the camera mean.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    @override
    def forward(
        self, features: Tensor, valid: Tensor, camera_mean: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Subtract the camera mean, and score.

        Args:
            features: float32 (B, T, D).
            valid: float32 (B, T), 1 where there is a snippet.
            camera_mean: float32 (B, D).

        Returns:
            cas (B, T, C), attention (B, T) and video scores (B, C), float32 in [0, 1].
        """
        centred = (features - camera_mean.unsqueeze(1)) * valid.unsqueeze(2)
        scores = self.network(centred, valid)
        return scores.cas, scores.attention, scores.video_scores


def export(
    run: TrainedNetwork,
    base: ModelBundle,
    out: Path,
    *,
    name: str,
    version: int = 1,
    source: str,
    changes: Mapping[str, Any] | None = None,
    pace: CameraMeanPace = CameraMeanPace(),
    without_backbone: bool = False,
    precision: Precision = "f32",
    clips: Clips | None = None,
    on_progress: OnProgress = lambda _stage, _done, _total: None,
) -> Path:
    """Write a bundle: the base's backbone, the run's network, classes and camera means.

    Args:
        run: What was trained.
        base: The bundle whose backbone made the features; whatever else its card says is taken
            over.
        out: The new bundle's folder.
        name: The new bundle's name.
        version: Its version under this name.
        source: Where the weights come from, in words.
        changes: Other fields of ``ModelCard``: ``window``, ``proposals``, ``tracker``.
        pace: How fast camera means move in the daemon.
        without_backbone: True names the base, a published model, instead of copying its 49 MB.
        precision: Precision of the backbone; f32 leaves the base's as it is.
        clips: What int8 is calibrated on.
        on_progress: Gets stage, done and total during calibration.

    Returns:
        ``out``.

    Raises:
        DataError: This backbone did not make the features that the run was trained on, or the base
            cannot be pulled and its backbone shall be left out, or int8 is wanted without clips.
        BundleError: The parts contradict each other, the base is to be converted and is not f32,
            or ``out`` holds something other than a bundle.
        DeviceError: OpenVINO, which calibration needs, is missing or failed.
    """
    check_features(run, base)
    make_room(out)
    cameras = {camera: vector for camera, vector in run.camera_means.items() if camera}
    camera_mean = CameraMeanSpec(
        prior_snippets_known=pace.prior_snippets_known,
        prior_snippets_new=pace.prior_snippets_new,
        memory_snippets=pace.memory_snippets,
        default=run.camera_means[""],
        cameras=cameras,
    )
    is_f32 = precision == "f32"
    stated = {**(changes or {}), "precision": base.card.precision if is_f32 else precision}
    if not is_f32:
        source = f"{source}; {described(base.card, precision, clips)}"
    # The card comes before the backbone, which may take minutes, so that a bad name is told at
    # once.
    card = card_of(run, base, name=name, version=version, source=source, changes=stated)
    if is_f32:
        backbone = _same_backbone(base, without_backbone=without_backbone)
    else:
        backbone = _converted(base, precision, clips, on_progress, without_backbone)
    return write_bundle(
        out,
        card,
        backbone=backbone,
        localizer=localizer_onnx(run.network, run.feature_dim),
        camera_mean=camera_mean if run.config.background == "camera" else fixed_zero(camera_mean),
        original=None if is_f32 else original_of(base),
    )


def _same_backbone(base: ModelBundle, *, without_backbone: bool) -> bytes | BackboneReference:
    pulled = base.backbone_model or (base.name if without_backbone else None)
    if pulled is not None and pulled not in MODELS:
        raise DataError(f"{pulled} cannot be pulled ({', '.join(MODELS)} can): export it whole")
    return BackboneReference(pulled) if pulled else base.backbone_path.read_bytes()


def _converted(
    base: ModelBundle,
    precision: Precision,
    clips: Clips | None,
    on_progress: OnProgress,
    without_backbone: bool,  # noqa: FBT001 - the user's own flag
) -> bytes:
    if without_backbone:
        raise DataError(f"a backbone in {precision} is in no published model: export it whole")
    check_is_f32(base)
    return lowered(base.backbone_path.read_bytes(), precision, clips, on_progress)


def fixed_zero(camera_mean: CameraMeanSpec) -> CameraMeanSpec:
    """Return camera means for a network trained without them: zeros that no footage moves.

    The prior counts as many snippets as are remembered, too many for footage to move the mean.
    """
    heavy = 2**53  # beyond it, counting one more no longer changes a float64
    return replace(
        camera_mean,
        prior_snippets_known=heavy,
        prior_snippets_new=heavy,
        memory_snippets=heavy,
        cameras={},
    )


def card_of(
    run: TrainedNetwork,
    base: ModelBundle,
    *,
    name: str,
    version: int,
    source: str,
    changes: Mapping[str, Any],
) -> ModelCard:
    """Make the new bundle's card: the base's, with what the run decides.

    Raises:
        DataError: A change is no field of the card, or its value is not allowed.
    """
    own = {
        "name": name,
        "version": version,
        "source": source,
        "timeline": run.grid,
        "class_names": run.class_names,
    }
    try:
        return replace(base.card, **{**changes, **own})
    except (TypeError, ValueError) as error:
        raise DataError(f"bundle {name}: {error}") from error


def check_features(run: TrainedNetwork, base: ModelBundle) -> None:
    """Refuse a run whose features another backbone made than the one it will be used with.

    Raises:
        DataError: Another extractor made them, or nothing says which one did.
    """
    wanted = manifest_of(base)
    if not run.manifest:
        raise DataError(
            f"the run has no manifest of its features, bundle {base.name} cannot be compared: "
            "train on features that s2net extract made"
        )
    for key, value in wanted.items():
        # The stride is no property of a backbone; the card takes the run's.
        if key != "stride_frames" and run.manifest.get(key) != value:
            raise DataError(
                f"the run's features: {key} is {run.manifest.get(key)!r}, bundle {base.name} has "
                f"{value!r}: extract with this bundle and train again, or export on the other one"
            )


def localizer_onnx(network: Network, feature_dim: int) -> bytes:
    """Write a network as ONNX bytes; equal weights give equal bytes.

    Args:
        network: On the CPU, in evaluation mode.
        feature_dim: D.
    """
    n_batch, n_snippets = _TRACED
    example = (
        torch.zeros(n_batch, n_snippets, feature_dim),
        torch.ones(n_batch, n_snippets),
        torch.zeros(n_batch, feature_dim),
    )
    # Only B is free for the camera mean and the video scores, whose second axis is D or C.
    free = {
        tensor: {0: "B"} if tensor in {"background", "video_scores"} else {0: "B", 1: "T"}
        for tensor in (*INPUTS, *OUTPUTS)
    }
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # This is the older exporter: the newer one needs onnxscript, and writes versions into the
        # file.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            LocalizerModule(network).eval(),
            example,
            file,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_axes=free,
            opset_version=OPSET,
            dynamo=False,
        )
    return _stripped(onnx.load_from_string(file.getvalue()))


def _stripped(model: Any) -> bytes:
    """Remove what differs between machines, versions and source locations, and serialise."""
    model.producer_version = ""
    model.doc_string = ""
    del model.metadata_props[:]
    model.graph.name = "localizer"
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    blob: bytes = model.SerializeToString(deterministic=True)
    return blob
