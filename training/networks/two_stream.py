"""Two-Stream: an attention branch and a MIL branch, fused late, and a dictionary of semantics.

x = X + conv(ReLU(conv(X))). Three attentions, action a^fg, its context a^ct and background a^bg,
are a softmax over three. Each pools the video twice: the attention branch classifies
x_* = Σ a^* x / Σ a^*, the MIL branch takes the top-k mean of a^* p with p = FC(x). The mean of
both is held to what the attention should have seen. A learned dictionary draws each snippet to
the semantics of the class it looks like.

B, T: sequences and positions; N, L: bags and their positions; D: feature dimensions; C: classes;
the background is class C, the last (the paper's is the first). 3: fg, ct, bg.

Source: Wang, Li, Wang, Two-Stream Networks for Weakly-Supervised Temporal Action Localization
with Semantic-Aware Mechanisms (CVPR 2023). No code is published. The block of the embedding, the
attention head (as in ACM-Net), separate classifiers of the two branches, and which classes the
dictionary may answer with are our choices.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from typing_extensions import override

from training.networks.base import BagBatch, Network, Scores
from training.networks.losses import (
    BagLayout,
    frame_cross_entropy,
    guide_loss,
    masked_mean,
    shared_cross_entropy,
    top_k_mean,
    weighed,
)
from training.networks.trunks import Convolution

_BRANCHES = ("action", "context", "background")
_TINY = 1e-6  # keeps the mean of snippets that nothing attends to finite


@dataclass(frozen=True, slots=True)
class TwoStreamConfig:
    """Parts and losses; a weight of 0 switches a loss off.

    Attributes:
        hidden_width: Channels between the two convolutions of the embedding.
        kernel: Snippets that each of them sees, odd.
        causal: True lets no snippet see later ones, for live use.
        dropout: Share dropped before the MIL branch's classifier.
        gated: False answers softmax(a^fg p) with an attention of 1, as published: where nothing
            acts, each class keeps a score of 1 / (C + 1). True multiplies it by a^fg once more.
        pool_ratios: The MIL branch pools the best 1/ratio of a bag, for action, context and
            background.
        action: Weight of the loss that holds what the action attention saw to the tags.
        context: Weight of the same for the context attention: tags and background.
        background: Weight of the same for the background attention: background alone.
        semantic: Weight of the loss that draws snippets to the dictionary.
        guide: Weight of the loss that wants action attention and background to be opposites.
        frame: Weight of the loss that holds snippet scores to the pseudo labels of a second
            round, where a batch has them.
        only_tagged: Whether the dictionary answers only with the bag's tags and background; False
            allows every class.
        warm_up_steps: Steps in which the dictionary stays at the classes' means, without its loss.
    """

    hidden_width: int
    kernel: int
    causal: bool
    dropout: float
    gated: bool
    pool_ratios: tuple[int, int, int]
    action: float
    context: float
    background: float
    semantic: float
    guide: float
    frame: float
    only_tagged: bool
    warm_up_steps: int

    def __post_init__(self) -> None:
        if self.kernel % 2 != 1 or self.kernel < 1:
            raise ValueError(f"kernel is {self.kernel}, wanted an odd number")
        if self.hidden_width < 1:
            raise ValueError(f"hidden_width is {self.hidden_width}, wanted 1 or more")
        if min(self.pool_ratios) < 1:
            raise ValueError(f"pool_ratios are {self.pool_ratios}, wanted 1 or more each")


class TwoStream(Network):
    """The network and its objective.

    Of its answer, ``cas`` is softmax(a^fg p), as published. It holds the attention already, so
    ``attention`` is 1 where valid, or a^fg if the answer is gated. ``video_scores`` are the fused
    scores of the action attention.

    Args:
        config: Parts and losses.
        feature_dim: D.
        n_classes: C.
    """

    def __init__(self, config: TwoStreamConfig, *, feature_dim: int, n_classes: int) -> None:
        super().__init__()
        self.config, self._n_classes = config, n_classes
        width, kernel, causal = config.hidden_width, config.kernel, config.causal
        self.inner = Convolution(feature_dim, width, kernel, causal=causal)
        self.outer = Convolution(width, feature_dim, kernel, causal=causal)
        nn.init.zeros_(self.outer.inner.weight)  # training starts from the features as they are
        nn.init.zeros_(self.outer.inner.bias)
        self.attention = nn.Linear(feature_dim, len(_BRANCHES))
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(feature_dim, n_classes + 1)
        self.pooled_classifier = nn.Linear(feature_dim, n_classes + 1)
        self.dictionary = nn.Parameter(torch.zeros(n_classes + 1, feature_dim))

    @override
    def fit_input(self, rows: Tensor, tags: Tensor, n_videos: int) -> None:
        """Start the dictionary at the means of rows (N, D) whose video has the tag, of (N, C).

        The background's row, and that of a class without a video, is the mean of all.
        """
        del n_videos
        counts = tags.sum(dim=0).unsqueeze(-1)  # (C, 1)
        means = (tags.T @ rows) / counts.clamp(min=1)  # (C, D)
        overall = rows.mean(dim=0, keepdim=True)  # (1, D)
        own = torch.where(counts > 0, means, overall)
        with torch.no_grad():
            self.dictionary.copy_(torch.cat([own, overall]))

    @override
    def forward(self, features: Tensor, valid: Tensor) -> Scores:
        """Score features (B, T, D) under valid (B, T); see the base class.

        ``parts`` of the answer holds ``embedding`` x (B, T, D), ``attentions`` (B, T, 3) and
        ``logits`` p (B, T, C + 1).
        """
        mask = valid.to(features.dtype).unsqueeze(-1)  # (B, T, 1)
        given = features.masked_fill(mask == 0, 0.0)
        x = (given + self.outer(self.inner(given).relu() * mask)) * mask  # (B, T, D)
        attentions = self.attention(x).softmax(dim=-1) * mask  # (B, T, 3)
        logits = self.classifier(self.dropout(x))  # (B, T, C + 1)
        acting = attentions[..., :1] * logits
        cas = acting.softmax(dim=-1)[..., : self._n_classes] * mask
        fused = self._fused(x, attentions, logits, mask.squeeze(-1))[:, 0, :-1]  # (B, C)
        video_scores = fused * mask.amax(dim=1)
        parts = {"embedding": x, "attentions": attentions, "logits": logits}
        attention = attentions[..., 0] if self.config.gated else mask.squeeze(-1)
        return Scores(cas, attention, video_scores, parts)

    @override
    def losses(self, scores: Scores, batch: BagBatch, step: int) -> dict[str, Tensor]:
        """Return the weighted terms, scalars (), by the names of ``TwoStreamConfig``."""
        parts, config = scores.parts, self.config
        layout = BagLayout(batch.bags, len(batch.tags))
        x, attentions, logits = (
            layout.arranged(parts[name]) for name in ("embedding", "attentions", "logits")
        )
        fused = self._fused(x, attentions, logits, layout.valid)  # (N, 3, C + 1)
        none = torch.zeros_like(batch.tags)
        terms = {
            "action": shared_cross_entropy(fused[:, 0], batch.tags, background=0),
            "context": shared_cross_entropy(fused[:, 1], batch.tags, background=1),
            "background": shared_cross_entropy(fused[:, 2], none, background=1),
            "guide": self._guide(attentions, logits, layout.valid),
        }
        if step >= config.warm_up_steps:
            terms["semantic"] = self._semantic(x, logits, batch.tags, layout.valid)
        if batch.targets is not None:
            terms["frame"] = frame_cross_entropy(scores.cas, batch.targets, batch.valid)
        return weighed(terms, config)

    def _fused(self, x: Tensor, attentions: Tensor, logits: Tensor, valid: Tensor) -> Tensor:
        """Pool a row (N, L, ...) by each attention in both branches: (N, 3, C + 1)."""
        total = attentions.sum(dim=1).unsqueeze(-1)  # (N, 3, 1)
        seen = attentions.transpose(1, 2) @ x / total.clamp(min=_TINY)  # (N, 3, D)
        attended = self.pooled_classifier(seen).softmax(dim=-1)
        pooled = [  # (N, C + 1) each
            top_k_mean(attentions[..., i : i + 1] * logits, valid, ratio)
            for i, ratio in enumerate(self.config.pool_ratios)
        ]
        return (attended + torch.stack(pooled, dim=1).softmax(dim=-1)) / 2

    @staticmethod
    def _guide(attentions: Tensor, logits: Tensor, valid: Tensor) -> Tensor:
        """Return the guide loss of attentions (N, L, 3) and logits (N, L, C + 1), a scalar ()."""
        return guide_loss(attentions[..., 0], attentions[..., :1] * logits, valid)

    def _semantic(self, x: Tensor, logits: Tensor, tags: Tensor, valid: Tensor) -> Tensor:
        """Return the mean distance of x (N, L, D) from the chosen rows, a scalar ().

        The row is that of the highest logit (N, L, C + 1); tags are (N, C).
        """
        allowed = nn.functional.pad(tags, (0, 1), value=1.0).unsqueeze(1)  # (N, 1, C + 1)
        open_to = (
            logits.masked_fill(allowed == 0, -torch.inf) if self.config.only_tagged else logits
        )
        chosen = open_to.argmax(dim=-1)  # (N, L)
        return masked_mean((x - self.dictionary[chosen]).norm(dim=-1), valid)
