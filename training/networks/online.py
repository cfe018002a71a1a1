"""The online head: S2Net's light form, taught to score what has only begun.

Features → whitening → one convolution → class logits → light STA over the same logits → sigmoid.
It learns from a teacher that saw whole clips: its scores and segments are the targets of every
position, of whole clips and of windows that end in the middle of one, as a live camera has them;
and it says what the teacher will find in the next hops. A bounded head sees at most ``look_ahead``
later positions, and the further back instead; the other sees those that have come, and a position
is scored anew as more come.

B, T: sequences and positions; D, d: feature and embedding dimensions; C: classes; A: hops that
are anticipated; W, U: live windows and their positions.

Source: the three kinds of supervision are OnPoint's (ECCV 2026), the network is ours.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from typing_extensions import override

from training.networks.base import BagBatch, Network, Scores
from training.networks.losses import (
    BagLayout,
    bag_cross_entropy,
    frame_cross_entropy,
    linear_softmax_mean,
    weighed,
)
from training.networks.s2net_config import InteractionConfig
from training.networks.score_interaction import ScoreInteraction
from training.networks.trunks import Convolution
from training.networks.whitening import Whitening


@dataclass(frozen=True, slots=True)
class OnlineConfig:
    """The online head and what it learns from.

    Attributes:
        look_ahead: How many hops after its end an event is final.
        bounded: Whether no score sees more than so many later hops. Otherwise each sees what its
            window holds.
        whitening_dims: Number of PCA directions that are kept; 0 for no whitening.
        width: d.
        kernel: Positions that the convolution sees, odd: half of them later ones, as far as it
            may look ahead.
        windows: Widths of the short-term windows in hops, odd; of a bounded head they look ahead
            by what the convolution leaves of the look-ahead.
        key_dims: Number of dimensions in which positions are compared.
        input_dropout: Share dropped before the convolution.
        dropout: Share dropped of embeddings.
        segments: Share of pseudo segments in the targets; the rest is the teacher's scores.
        bag: Weight of the loss that holds clips to their tags.
        frame: Weight of the loss that holds every position of whole clips to its target.
        live: Weight of the same loss on live windows.
        live_window: U, hops of a live window.
        live_windows: W, how many are cut out of each batch.
        live_newest: So many of a window's newest positions count: those that are scored anew.
        anticipation: Weight of the loss that holds forecasts to the targets of the next hops.
        anticipated: A.
    """

    look_ahead: int
    bounded: bool
    whitening_dims: int
    width: int
    kernel: int
    windows: tuple[int, ...]
    key_dims: int
    input_dropout: float
    dropout: float
    segments: float
    bag: float
    frame: float
    live: float
    live_window: int
    live_windows: int
    live_newest: int
    anticipation: float
    anticipated: int

    def __post_init__(self) -> None:
        if self.kernel % 2 != 1 or not self.windows or any(w % 2 != 1 for w in self.windows):
            raise ValueError(f"kernel, windows are {self.kernel}, {self.windows}, wanted odd ones")
        if not 0 <= self.look_ahead <= self.furthest:
            raise ValueError(
                f"look_ahead is {self.look_ahead} hops, wanted 0 to {self.furthest}: kernel and "
                "windows see no further"
            )
        if not 0 <= self.segments <= 1:
            raise ValueError(f"segments is {self.segments}, wanted a share in [0, 1]")
        if min(self.live_window, self.live_windows, self.live_newest, self.anticipated) < 1:
            raise ValueError("live_window, live_windows, live_newest, anticipated are 1 or more")

    @property
    def furthest(self) -> int:
        """How many hops ahead kernel and windows would see without a limit."""
        return self.kernel // 2 + max(self.windows) // 2

    @property
    def aheads(self) -> tuple[int, int]:
        """How many hops the convolution sees ahead, and the windows on top of it."""
        whole = self.look_ahead if self.bounded else self.furthest
        first = min(whole, self.kernel // 2)
        return first, whole - first


class Online(Network):
    """The network and its losses.

    ``attention`` of its answer is 1 where valid; ``video_scores`` are pooled as the bags are.

    Args:
        config: Its form.
        feature_dim: D.
        n_classes: C.

    Raises:
        DataError: The features do not fit the configuration.
    """

    def __init__(self, config: OnlineConfig, *, feature_dim: int, n_classes: int) -> None:
        super().__init__()
        self.config, self._n_classes = config, n_classes
        ahead, then_ahead = config.aheads
        self.whitening = Whitening(feature_dim, config.whitening_dims)
        self.input_dropout = nn.Dropout(config.input_dropout)
        self.convolution = Convolution(
            self.whitening.n_dims, config.width, config.kernel, ahead=ahead
        )
        self.dropout = nn.Dropout(config.dropout)
        self.logits = nn.Linear(config.width, n_classes)
        self.interaction = ScoreInteraction(
            _interaction(config),
            config.width,
            is_background_last=False,
            ahead=then_ahead,
        )
        self.forecast = nn.Linear(config.width, config.anticipated * n_classes)

    @override
    def fit_input(self, rows: Tensor, tags: Tensor, n_videos: int) -> None:
        """Fit the whitening on ``rows`` float32 (N, D); tags (N, C) are not needed for it."""
        del tags
        self.whitening.fit(rows, n_videos)

    @override
    def forward(self, features: Tensor, valid: Tensor) -> Scores:
        """Score features (B, T, D) under valid (B, T); see the base class.

        ``parts`` of the answer hold ``forecast`` (B, T, A * C), logits of what the next hops show.
        """
        mask = valid.to(features.dtype).unsqueeze(-1)  # (B, T, 1)
        whitened = self.whitening(features.masked_fill(mask == 0, 0.0)) * mask  # (B, T, k)
        u = self.convolution(self.input_dropout(whitened)).relu() * mask  # (B, T, d)
        dropped = self.dropout(u)
        logits = self.interaction(u, self.logits(dropped), mask)
        cas = logits.sigmoid() * mask  # (B, T, C)
        attention = mask.squeeze(-1)  # (B, T)
        video_scores = linear_softmax_mean(cas, attention)
        return Scores(cas, attention, video_scores, {"forecast": self.forecast(dropped)})

    @override
    def losses(self, scores: Scores, batch: BagBatch, step: int) -> dict[str, Tensor]:
        """Return the weighted terms, scalars (), by the names of ``OnlineConfig``.

        Without targets, which only a teacher gives, clips are held to their tags alone.
        """
        layout = BagLayout(batch.bags, len(batch.tags))
        pooled = linear_softmax_mean(layout.arranged(scores.cas), layout.valid)
        terms = {"bag": bag_cross_entropy(pooled, batch.tags)}
        if batch.targets is not None:
            terms["frame"] = frame_cross_entropy(scores.cas, batch.targets, batch.valid)
            if self.config.live:
                terms["live"] = self._live_loss(batch, batch.targets)
            if self.config.anticipation:
                terms["anticipation"] = self._anticipation_loss(scores, batch, batch.targets)
        return weighed(terms, self.config)

    def _live_loss(self, batch: BagBatch, targets: Tensor) -> Tensor:
        """Hold the newest positions of windows, cut out at random, to targets (B, T, C).

        A window ends at any position that holds a snippet, so it ends in the middle of actions;
        what came before it in the sequence is its past.
        """
        config = self.config
        ends = torch.nonzero(batch.valid)  # (P, 2)
        drawn = torch.randint(len(ends), (config.live_windows,)).to(ends.device)
        row, end = ends[drawn].T  # (W,), (W,)
        back = torch.arange(1 - config.live_window, 1, device=ends.device)  # (U,)
        at = end.unsqueeze(1) + back  # (W, U)
        row, place = row.unsqueeze(1), at.clamp(min=0)
        valid = batch.valid[row, place] & (at >= 0)
        seen = self(batch.features[row, place], valid)
        counted = valid & (back > -config.live_newest)
        return frame_cross_entropy(seen.cas, targets[row, place], counted)

    def _anticipation_loss(self, scores: Scores, batch: BagBatch, targets: Tensor) -> Tensor:
        """Hold the forecasts to the targets (B, T, C) of the next A hops of the same clip."""
        n_classes, terms = self._n_classes, []
        probabilities = scores.parts["forecast"].sigmoid()  # (B, T, A * C)
        for hop in range(1, self.config.anticipated + 1):
            if hop >= batch.bags.shape[1]:
                break
            told = probabilities[:, :-hop, (hop - 1) * n_classes : hop * n_classes]
            is_same = (batch.bags[:, :-hop] == batch.bags[:, hop:]) & batch.valid[:, :-hop]
            terms.append(frame_cross_entropy(told, targets[:, hop:], is_same))
        return torch.stack(terms).mean() if terms else scores.cas.sum() * 0


def online_config(look_ahead: int) -> OnlineConfig:
    """Return the preset: the form of S2Net's `light`, the losses as chosen on planted features."""
    return OnlineConfig(
        look_ahead=look_ahead,
        bounded=False,
        whitening_dims=128,
        width=256,
        kernel=5,
        windows=(3, 5, 9),
        key_dims=32,
        input_dropout=0.5,
        dropout=0.5,
        segments=1.0,
        bag=1.0,
        frame=1.0,
        live=1.0,
        live_window=24,
        live_windows=32,
        live_newest=8,
        anticipation=0.2,
        anticipated=3,
    )


def _interaction(config: OnlineConfig) -> InteractionConfig:
    return InteractionConfig(
        level="score",
        sta=True,
        lta=False,
        fusion=True,
        windows=config.windows,
        heads=1,
        key_dims=config.key_dims,
        segment_snippets=1,
        max_segments=1,
    )
