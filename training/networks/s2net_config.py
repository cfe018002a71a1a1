"""What an S2Net is made of: one switch for each part, and two presets."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class TrunkConfig:
    """The trunk, which turns features into embeddings.

    Attributes:
        kind: ``light``: whitening and one convolution, for short tagged clips. ``filter``: each
            modality filters the other, for long, dense videos.
        whitening_dims: Number of PCA directions that are kept; 0 for no whitening. ``filter``
            keeps as many of each modality.
        whitening_shrink: How far weak directions are held down: a direction of variance v is
            weighed by v / (v + s), where s is so many times the features' total variance divided
            by the number of training videos. With few videos it spares the network what only
            their scenery varies in; with many it fades. 0 is plain whitening.
        modalities: Number of equal parts that make up the feature vector (rgb|flow: 2);
            ``filter`` only.
        width: Dimensions of an embedding.
        kernel: Number of snippets that the light convolution sees, odd; ``light`` only.
        input_dropout: Share dropped before the first convolution, or inside the filter.
        dropout: Share dropped of embeddings and in the classifier.
    """

    kind: Literal["light", "filter"]
    whitening_dims: int
    whitening_shrink: float
    modalities: int
    width: int
    kernel: int
    input_dropout: float
    dropout: float

    def __post_init__(self) -> None:
        if self.whitening_shrink < 0:
            raise ValueError(f"whitening_shrink is {self.whitening_shrink}, wanted 0 or more")
        if self.kernel % 2 != 1 or self.kernel < 1:
            raise ValueError(f"kernel is {self.kernel}, wanted an odd number")
        if self.modalities not in {1, 2}:
            raise ValueError(f"modalities is {self.modalities}, wanted 1 or 2")


@dataclass(frozen=True, slots=True)
class InteractionConfig:
    """The sparse temporal interaction unit.

    Attributes:
        level: ``score`` mixes class scores (light), ``feature`` adds to embeddings.
        sta: Whether there is short-term attention.
        lta: Whether there is long-term attention over the most active segments.
        fusion: True learns at each position the share of each attention; False takes equal or
            fixed shares.
        windows: Widths of the short-term windows in snippets, odd, rising.
        heads: Number of attention heads; ``feature`` only.
        key_dims: Number of dimensions in which positions are compared; ``score`` only.
        segment_snippets: g, the number of snippets averaged into one long-term segment.
        max_segments: R, the highest number of segments attended to.
    """

    level: Literal["score", "feature"]
    sta: bool
    lta: bool
    fusion: bool
    windows: tuple[int, ...]
    heads: int
    key_dims: int
    segment_snippets: int
    max_segments: int

    def __post_init__(self) -> None:
        if not self.windows or any(w < 1 or w % 2 != 1 for w in self.windows):
            raise ValueError(f"windows are {self.windows}, wanted odd numbers of snippets")
        if self.segment_snippets < 1 or self.max_segments < 1:
            raise ValueError("segment_snippets and max_segments are 1 or more")


@dataclass(frozen=True, slots=True)
class PrototypeConfig:
    """The semantic learning module: one prototype for each class and one for the background.

    Attributes:
        source: ``ema``: moving averages over bags; ``learned``: parameters; ``none``: there are
            no prototypes.
        inject: Whether prototypes are read into the embeddings.
        fuse: Whether prototype responses are added to the class logits.
        momentum: Share of the old prototype that an update keeps.
        pool_ratio: A bag's vector pools its best 1/ratio of snippets.
        temperature: Divisor of prototype responses and contrasts.
        heads: Number of attention heads of ``inject``.
        warm_up_steps: Steps before prototypes are read; they are updated from half of it on.
    """

    source: Literal["ema", "learned", "none"]
    inject: bool
    fuse: bool
    momentum: float
    pool_ratio: int
    temperature: float
    heads: int
    warm_up_steps: int

    def __post_init__(self) -> None:
        if self.source == "none" and (self.inject or self.fuse):
            raise ValueError("inject and fuse need prototypes: source is none")


@dataclass(frozen=True, slots=True)
class ObjectiveConfig:
    """How bags are scored, and the weight of each loss; a weight of 0 switches a loss off.

    Attributes:
        activation: ``sigmoid``: independent classes; ``softmax``: with a background class.
        actionness: Whether an actionness is learned beside the classes.
        pooling: How snippets become a bag's score.
        pool_ratio: ``topk`` pools the best 1/ratio of a bag.
        bag: Weight of the loss that holds bag scores to the tags.
        suppressed_bag: Weight of the same loss after suppression by actionness.
        co_activity: Weight of the loss that wants bags of one class to look alike.
        mutual: Weight of the loss that wants two modalities' actionness to agree.
        sparsity: Weight of the loss that wants actions to be rare.
        guide: Weight of the loss that wants actionness and background to be opposites.
        contrast: Weight of the contrast of bag vectors.
        contrast_with: What bag vectors are held against: ``prototypes``, or the other ``bags`` of
            the batch.
        boundary: Weight of the boundary-guided loss.
        frame: Weight of the loss that holds snippet scores to the pseudo labels of a second
            round, where a batch has them.
        ramp_steps: Steps in which contrast and boundary rise to their weight after warm-up.
    """

    activation: Literal["sigmoid", "softmax"]
    actionness: bool
    pooling: Literal["linear_softmax", "topk"]
    pool_ratio: int
    bag: float
    suppressed_bag: float
    co_activity: float
    mutual: float
    sparsity: float
    guide: float
    contrast: float
    contrast_with: Literal["prototypes", "bags"]
    boundary: float
    frame: float
    ramp_steps: int

    def __post_init__(self) -> None:
        if self.pool_ratio < 1:
            raise ValueError(f"pool_ratio is {self.pool_ratio}, wanted 1 or more")
        if self.activation == "softmax" and self.pooling != "topk":
            raise ValueError("activation softmax needs pooling topk")
        if self.guide and self.activation != "softmax":
            raise ValueError("guide needs the background class of activation softmax")
        if not self.actionness and (self.suppressed_bag or self.sparsity or self.guide):
            raise ValueError("suppressed_bag, sparsity and guide need actionness")


@dataclass(frozen=True, slots=True)
class S2NetConfig:
    """One S2Net, by its parts."""

    trunk: TrunkConfig
    interaction: InteractionConfig
    prototypes: PrototypeConfig
    objective: ObjectiveConfig

    def __post_init__(self) -> None:
        if self.objective.mutual and (self.trunk.kind == "light" or self.trunk.modalities == 1):
            raise ValueError("objective.mutual needs the filter trunk with two modalities")
        against_prototypes = (
            self.objective.contrast and self.objective.contrast_with == "prototypes"
        )
        if against_prototypes and self.prototypes.source == "none":
            raise ValueError(
                "objective.contrast_with is prototypes, but prototypes.source is none"
            )
        is_blind = not self.objective.actionness and self.prototypes.source == "none"
        if self.interaction.level == "feature" and self.interaction.lta and is_blind:
            raise ValueError("interaction.lta of features needs actionness or prototypes")
        for part, heads, is_used in (
            ("interaction", self.interaction.heads, self.interaction.level == "feature"),
            ("prototypes", self.prototypes.heads, self.prototypes.inject),
        ):
            if is_used and self.trunk.width % heads:
                raise ValueError(f"{part}.heads is {heads}: trunk.width must be a multiple of it")


def light_config() -> S2NetConfig:
    """Return the preset for short tagged clips; it led on rendered scenes with real features."""
    return S2NetConfig(
        trunk=TrunkConfig(
            kind="light",
            whitening_dims=128,
            whitening_shrink=1.0,
            modalities=1,
            width=256,
            kernel=5,
            input_dropout=0.5,
            dropout=0.5,
        ),
        interaction=InteractionConfig(
            level="score",
            sta=True,
            lta=False,
            fusion=True,
            windows=(3, 5, 9),
            heads=1,
            key_dims=32,
            segment_snippets=4,
            max_segments=8,
        ),
        prototypes=PrototypeConfig(
            source="none",
            inject=False,
            fuse=False,
            momentum=0.9,  # a run has some 150 steps: .99 would hardly leave the first vector
            pool_ratio=6,
            temperature=0.1,
            heads=1,
            warm_up_steps=30,
        ),
        objective=ObjectiveConfig(
            activation="sigmoid",
            actionness=False,
            pooling="linear_softmax",
            pool_ratio=7,
            bag=1.0,
            suppressed_bag=0.0,
            co_activity=0.0,
            mutual=0.0,
            sparsity=0.0,
            guide=0.0,
            contrast=0.0,
            contrast_with="bags",
            boundary=0.0,
            frame=1.0,
            ramp_steps=30,
        ),
    )


def paper_config(*, modalities: int = 2, width: int = 1024) -> S2NetConfig:
    """Return the preset for long, dense videos: as published, with our choices where that is open.

    Args:
        modalities: 2 for rgb|flow, 1 for rgb alone.
        width: 1024, or 512 for a smaller network.
    """
    return S2NetConfig(
        trunk=TrunkConfig(
            kind="filter",
            whitening_dims=0,
            whitening_shrink=0.0,
            modalities=modalities,
            width=width,
            kernel=3,
            input_dropout=0.5,
            dropout=0.7,
        ),
        interaction=InteractionConfig(
            level="feature",
            sta=True,
            lta=True,
            fusion=True,
            windows=(3, 7, 15),
            heads=8,
            key_dims=32,
            segment_snippets=4,
            max_segments=32,
        ),
        prototypes=PrototypeConfig(
            source="ema",
            inject=True,
            fuse=False,
            momentum=0.99,
            pool_ratio=16,
            temperature=0.1,
            heads=8,
            warm_up_steps=500,
        ),
        objective=ObjectiveConfig(
            activation="softmax",
            actionness=True,
            pooling="topk",
            pool_ratio=7,
            bag=1.0,
            suppressed_bag=1.0,
            co_activity=1.0,
            mutual=1.0 if modalities > 1 else 0.0,
            sparsity=0.8,
            guide=0.8,
            contrast=0.1,
            contrast_with="prototypes",
            boundary=0.1,
            frame=0.0,
            ramp_steps=500,
        ),
    )
