"""What a model bundle says about each stage: plain frozen values, validated once, here.

No stage has a model constant of its own: whoever builds a stage hands it a part of ``ModelSpec``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from engine.grid import Grid, exact_div
from engine.types import FloatArray

# No published video backbone takes a larger square: a bundle that asks for one is damaged.
MAX_CROP_PX = 1024


def _require(*, holds: bool, what: str, seen: object, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{what} is {seen}, wanted {wanted}")


@dataclass(frozen=True, slots=True)
class FrameGeometry:
    """How a decoded frame of any size becomes the square the model takes.

    Attributes:
        resize_px: ``crop``: length of the shorter side after the aspect-preserving resize.
            ``pad``: length of the longer side.
        crop_px: Side of the square the model sees.
        fit: ``crop`` cuts the centre out; ``pad`` keeps everything and fills with black.
    """

    resize_px: int
    crop_px: int
    fit: Literal["crop", "pad"] = "crop"

    def __post_init__(self) -> None:
        _require(
            holds=self.fit in ("crop", "pad"), what="fit", seen=self.fit, wanted="crop or pad"
        )
        _require(
            holds=0 < self.crop_px <= MAX_CROP_PX,
            what="crop_px",
            seen=self.crop_px,
            wanted=f"1..{MAX_CROP_PX}",
        )
        fits = (
            self.resize_px >= self.crop_px
            if self.fit == "crop"
            else (0 < self.resize_px <= self.crop_px)
        )
        wanted = "at least crop_px" if self.fit == "crop" else "at most crop_px"
        _require(holds=fits, what="resize_px", seen=self.resize_px, wanted=wanted)


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """The sliding window of snippets and the longer track of scores behind it.

    Attributes:
        window_snippets: T, snippets the localizer sees at once.
        hop_snippets: A window ends at every ``hop_snippets``-th snippet.
        rescore_snippets: Newest positions of a window whose scores replace earlier ones. The
            difference to ``window_snippets`` is the least left context that any of them has.
        track_snippets: Newest positions whose scores are remembered and searched for events.
        max_gap_us: Frames further apart than this are a gap, and no frame is shown for longer, but
            for slow cameras (see ``engine.snippets``).
    """

    window_snippets: int
    hop_snippets: int
    rescore_snippets: int
    track_snippets: int
    max_gap_us: int

    def __post_init__(self) -> None:
        _require(
            holds=self.window_snippets >= 1,
            what="window_snippets",
            seen=self.window_snippets,
            wanted=">= 1",
        )
        _require(
            holds=1 <= self.hop_snippets <= self.rescore_snippets,
            what="hop_snippets",
            seen=self.hop_snippets,
            wanted="1..rescore_snippets, or positions are never scored",
        )
        _require(
            holds=self.rescore_snippets <= self.window_snippets <= self.track_snippets,
            what="rescore, window, track_snippets",
            seen=(self.rescore_snippets, self.window_snippets, self.track_snippets),
            wanted="in rising order",
        )
        _require(holds=self.max_gap_us > 0, what="max_gap_us", seen=self.max_gap_us, wanted="> 0")


@dataclass(frozen=True, slots=True)
class ProposalSpec:
    """How score curves become scored intervals.

    Attributes:
        step_us: Scores are interpolated to this grid; must divide the snippet stride.
        absolute_levels: Level sets at these scores.
        relative_levels: Level sets at these shares of the curve's maximum.
        outer_weight: Weight of the mean outside in the OIC score.
        outer_ratio: Width of the outside on each side, as a share of the interval's length.
        video_weight: Weight of the class's video score in the OIC score.
        min_us: Shorter intervals are dropped.
        soft_nms_sigma: Width of the Gaussian in class-wise soft-NMS.
        min_peak: A class whose curve stays below this makes no proposals.
    """

    step_us: int
    absolute_levels: tuple[float, ...]
    relative_levels: tuple[float, ...]
    outer_weight: float
    outer_ratio: float
    video_weight: float
    min_us: int
    soft_nms_sigma: float
    min_peak: float

    def __post_init__(self) -> None:
        _require(holds=self.step_us > 0, what="step_us", seen=self.step_us, wanted="> 0")
        _require(
            holds=len(self.absolute_levels) + len(self.relative_levels) > 0,
            what="levels",
            seen="none",
            wanted="at least one absolute or relative level",
        )
        for level in (*self.absolute_levels, *self.relative_levels):
            _require(holds=0 < level < 1, what="a level", seen=level, wanted="in (0, 1)")
        _require(
            holds=self.outer_ratio > 0, what="outer_ratio", seen=self.outer_ratio, wanted="> 0"
        )
        _require(holds=self.min_us >= 0, what="min_us", seen=self.min_us, wanted=">= 0")
        _require(
            holds=self.soft_nms_sigma > 0,
            what="soft_nms_sigma",
            seen=self.soft_nms_sigma,
            wanted="> 0",
        )


@dataclass(frozen=True, slots=True)
class TrackerSpec:
    """When proposals become events.

    Attributes:
        open_score: A proposal opens an event at this OIC score or above.
        keep_score: An open event lives on while a matching proposal scores this or above.
        freeze_us: An event whose end lies this far behind the newest footage is final.
        retract_hops: An open event without a matching proposal for this many hops is retracted.
        nms_tiou: Proposals of one class that overlap a better one by more than this are dropped.
        block_tiou: Proposals that overlap a final event by more than this are dropped.
        block_cover: Proposals are dropped if more than this share lies inside a final event.
        class_open_scores: C values, one for each class, in place of ``open_score``; empty:
            ``open_score`` holds for all classes.
    """

    open_score: float
    keep_score: float
    freeze_us: int
    retract_hops: int
    nms_tiou: float
    block_tiou: float
    block_cover: float
    class_open_scores: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _require(
            holds=self.keep_score <= self.open_score,
            what="keep_score",
            seen=self.keep_score,
            wanted="at most open_score",
        )
        _require(holds=self.freeze_us >= 0, what="freeze_us", seen=self.freeze_us, wanted=">= 0")
        _require(
            holds=self.retract_hops >= 1,
            what="retract_hops",
            seen=self.retract_hops,
            wanted=">= 1",
        )
        for score in self.class_open_scores:
            _require(
                holds=math.isfinite(score), what="class_open_scores", seen=score, wanted="finite"
            )

    def open_score_of(self, class_index: int) -> float:
        """A proposal of class index ``class_index`` opens an event at this OIC score or above."""
        return self.class_open_scores[class_index] if self.class_open_scores else self.open_score

    def keep_score_of(self, class_index: int) -> float:
        """An open event of class index ``class_index`` lives on at this OIC score or above."""
        return min(self.keep_score, self.open_score_of(class_index))


@dataclass(frozen=True, slots=True)
class CameraMeanSpec:
    """What a camera's mean starts from, and how fast it follows the camera.

    Attributes:
        prior_snippets_known: How many snippets the stored mean counts as, for a camera that
            training has seen.
        prior_snippets_new: How many snippets ``default`` counts as, for any other camera.
        memory_snippets: Snippets after which what was seen weighs less by a factor of e.
        default: float32 (D,), the mean that any other camera starts with.
        cameras: float32 (D,) for each camera that training has seen, by name. Comparisons leave
            it out, and ``default`` too, because a model's id covers them.
    """

    prior_snippets_known: int
    prior_snippets_new: int
    memory_snippets: int
    default: FloatArray = field(compare=False, repr=False)
    cameras: Mapping[str, FloatArray] = field(compare=False, repr=False)

    def __post_init__(self) -> None:
        for what in ("prior_snippets_known", "prior_snippets_new"):
            seen = getattr(self, what)
            _require(holds=seen >= 0, what=what, seen=seen, wanted=">= 0")
        _require(
            holds=self.memory_snippets >= 1,
            what="memory_snippets",
            seen=self.memory_snippets,
            wanted=">= 1",
        )


class Rung(StrEnum):
    """How much of the footage the backbone looks at, from all of it down."""

    FULL = "full"
    HALF = "half"
    QUARTER = "quarter"
    GATED = "gated"

    @property
    def every(self) -> int:
        """Of so many snippets in a row one is looked at."""
        return {Rung.FULL: 1, Rung.HALF: 2}.get(self, 4)


@dataclass(frozen=True, slots=True)
class EconomySpec:
    """What the backbone may be spared; no part of a bundle, for whoever runs it decides.

    Attributes:
        rung: How much is looked at.
        lowest: How little is looked at of a camera that is late; one above ``rung`` changes
            nothing.
        is_gated: Snippets in which nothing moves are not looked at, on any rung.
        look_every: Of so many snippets in a row one is looked at, whatever it shows; None: there
            is no such limit.
        rungs: Cameras of which another rung is looked at.
    """

    rung: Rung = Rung.FULL
    lowest: Rung = Rung.FULL
    is_gated: bool = False
    look_every: int | None = None
    rungs: Mapping[str, Rung] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(
            holds=self.look_every is None or self.look_every >= 1,
            what="look_every",
            seen=self.look_every,
            wanted=">= 1",
        )

    def of(self, camera: str) -> "EconomySpec":
        """What is spared of one camera."""
        return replace(self, rung=self.rungs.get(camera, self.rung), rungs={})


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """All that a camera's session has to know of a model.

    Attributes:
        model_id: Bundle name and digest, as written in every event.
        class_names: C names; an event's class index counts into them.
        feature_dim: D.
        grid: The time grid.
        geometry: Frame size and fit.
        window: Window sizes.
        proposals: Post-processing.
        tracker: Event life cycle.
        camera_mean: What its localizer takes out of a camera's features; None: nothing.
        economy: What its backbone may be spared.
        camera_open_scores: Camera → C opening scores, one for each class, in place of the
            tracker's; cameras that are not named open at the tracker's.
    """

    model_id: str
    class_names: tuple[str, ...]
    feature_dim: int
    grid: Grid
    geometry: FrameGeometry
    window: WindowSpec
    proposals: ProposalSpec
    tracker: TrackerSpec
    camera_mean: CameraMeanSpec | None = None
    economy: EconomySpec = EconomySpec()
    camera_open_scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        step_us = self.proposals.step_us
        exact_div(self.grid.stride_us, step_us, "stride in interpolation steps")
        exact_div(self.grid.snippet_us, step_us, "snippet length in interpolation steps")
        # Frames that the grid does not show are left out: what is left lies so far apart.
        _require(
            holds=self.window.max_gap_us >= 2 * self.grid.frame_us,
            what="max_gap_us",
            seen=self.window.max_gap_us,
            wanted=f"two grid periods, {2 * self.grid.frame_us}, or more",
        )
        _require(
            holds=len(self.tracker.class_open_scores) in (0, len(self.class_names)),
            what="class_open_scores",
            seen=f"{len(self.tracker.class_open_scores)} scores",
            wanted=f"none, or one for each of {len(self.class_names)} classes",
        )
        for camera, scores in self.camera_open_scores.items():
            _require(
                holds=len(scores) == len(self.class_names) and all(map(math.isfinite, scores)),
                what=f"camera_open_scores.{camera}",
                seen=scores,
                wanted=f"{len(self.class_names)} finite scores, one for each class",
            )
        if self.camera_mean is not None:
            for vector in (self.camera_mean.default, *self.camera_mean.cameras.values()):
                _require(
                    holds=vector.shape == (self.feature_dim,),
                    what="a camera mean",
                    seen=vector.shape,
                    wanted=f"({self.feature_dim},)",
                )

    def with_open_score(self, open_score: float) -> "ModelSpec":
        """The same model, opening events of every class and camera at another score."""
        tracker = replace(
            self.tracker,
            open_score=open_score,
            keep_score=min(self.tracker.keep_score, open_score),
            class_open_scores=(),
        )
        return replace(self, tracker=tracker, camera_open_scores={})

    def tracker_of(self, camera: str) -> TrackerSpec:
        """The event life cycle of one camera's events, with its opening scores if it has any."""
        scores = self.camera_open_scores.get(camera)
        return replace(self.tracker, class_open_scores=scores) if scores else self.tracker


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a backend or a precision may stray from the f32 reference and still serve.

    Attributes:
        feature_cosine_min: Least cosine between both features of any one snippet.
        score_max_error: Largest difference of any score (class activation times attention, what
            events are made of). The default lies below the scores at which events open; int8
            was measured to reach 0.21 over 160 windows with every event in its place.
        event_f1_min: Least F1 between both sides' events, matched at a tIoU of at least 0.5. One
            event without a partner, beside others with one, is admitted whatever F1 that makes.
    """

    feature_cosine_min: float = 0.99
    score_max_error: float = 0.3
    event_f1_min: float = 0.9

    def __post_init__(self) -> None:
        for what in ("feature_cosine_min", "score_max_error", "event_f1_min"):
            seen = getattr(self, what)
            _require(holds=0 <= seen <= 1, what=what, seen=seen, wanted="in [0, 1]")
