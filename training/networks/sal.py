"""SAL: second-order semantics that are propagated, and actionness learned from its own labels.

Each modality's encoder gives an actionness A^m, a third one classes. What the dimensions of an
encoder's whole answer have in common (``second_order``) is classified, and is added to every
snippet as far as the snippet acts: F'_t = F_t + A_t W₁v. S is linear in F'. Snippets that score
high are labels of the actionness, weighed by how sure they are, also for sums of two videos.

B, T: sequences and positions; N, L: bags and their positions; D, d: feature and embedding
dimensions; M: modalities; C: classes. There is no background class.

Source: Li et al., SAL (Neural Networks 182:106905, 2025), and its published code. Ours are the
form for one modality, the product fusion, the low rank, and the causal form, which sees only
earlier snippets and a running second order.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from training.networks.base import BagBatch, Network, Scores, part_of
from training.networks.losses import (
    BagLayout,
    frame_cross_entropy,
    masked_mean,
    tag_cross_entropy,
    top_k_mean,
    uniformity_loss,
    weighed,
)
from training.networks.second_order import SecondOrder
from training.networks.snippet_losses import generalised_cross_entropy, top_places
from training.networks.trunks import Convolution

_MEMORY = 0.7  # share of the old statistics of confidence that a step keeps


@dataclass(frozen=True, slots=True)
class SalConfig:
    """Parts and losses; a weight of 0 switches a loss off.

    Attributes:
        modalities: Equal parts of the feature vector: 2 for rgb|flow, 1 for rgb alone.
        width: d.
        kernel: Snippets that the class encoder sees, odd; the actionness encoders see three.
        causal: True lets no snippet see later ones, for live use; it needs a rank.
        rank: Dimensions that are paired; 0 pairs all d, as published.
        reference_length: T that the second order is scaled for: that of training.
        half_life: Snippets after which the causal second order has forgotten half.
        dropout: Share dropped of every encoder's answer.
        rgb_share: λ, the share of RGB in the joint actionness; the rest is flow's.
        fusion: ``average``: class scores are means of softmax(S) and actionness, and a class below
            ``keep`` as a whole has none, as published. ``product``: they are multiplied.
        class_weight: In that mean, what softmax(S) weighs where each modality's actionness is 1.
        keep: The lowest score of a whole sequence with which a class is kept beside the best one.
        semantic_share: Share of the second-order logits in the scores of whole sequences.
        pool_ratio: A bag pools the best 1/ratio of its snippets.
        pool_by: Whether these are the best by ``fused`` scores or by the ``classes``' logits.
        background_ratio: The same of the background.
        positive_share: Share of a sequence whose actionness is labelled to act, ...
        positive_extra: ... and so many snippets more, ...
        confident_share: ... if they are of this share with the surest classes.
        bag: Weight of the loss that holds bag scores to the tags.
        mutual: Weight of the loss that wants two modalities' actionness to agree.
        background: Weight of the loss that wants no class in what does not act.
        actionness: Weight of the loss of the labels of the actionness.
        semantic: Weight of the loss that holds second-order logits to the tags, each encoder's.
        mixed: Weight of the loss of the same labels in sums of two sequences.
        frame: Weight of the loss that holds snippet scores to the pseudo labels of a second
            round, where a batch has them.
    """

    modalities: Literal[1, 2]
    width: int
    kernel: int
    causal: bool
    rank: int
    reference_length: int
    half_life: int
    dropout: float
    rgb_share: float
    fusion: Literal["average", "product"]
    class_weight: float
    keep: float
    semantic_share: float
    pool_ratio: int
    pool_by: Literal["fused", "classes"]
    background_ratio: int
    positive_share: float
    positive_extra: int
    confident_share: float
    bag: float
    mutual: float
    background: float
    actionness: float
    semantic: float
    mixed: float
    frame: float

    def __post_init__(self) -> None:
        if self.kernel % 2 != 1 or self.kernel < 1:
            raise ValueError(f"kernel is {self.kernel}, wanted an odd number")
        for name in ("width", "reference_length", "half_life", "pool_ratio", "background_ratio"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, wanted 1 or more")
        if not 0 <= self.rank <= self.width:
            raise ValueError(f"rank is {self.rank}, wanted 0 (all) to {self.width}, the width")
        if self.causal and not self.rank:
            raise ValueError("causal needs a rank: a second order of every snippet is too large")
        if self.causal and self.fusion == "average":
            raise ValueError("causal needs fusion product: average looks at whole sequences")
        if self.mutual and self.modalities == 1:
            raise ValueError("mutual needs two modalities")


class Sal(Network):
    """The network and its objective.

    Of its answer, ``cas`` with fusion ``average`` is the mean of softmax(S) and the modalities'
    actionness, and ``attention`` is 1 where valid, for it is in there already; with ``product``
    they are softmax(S) and the joint actionness. ``video_scores`` are a softmax of pooled and
    second-order logits.

    Args:
        config: Parts and losses.
        feature_dim: D.
        n_classes: C.

    Raises:
        DataError: The features cannot be parted evenly.
    """

    def __init__(self, config: SalConfig, *, feature_dim: int, n_classes: int) -> None:
        super().__init__()
        self.config, self._part = config, part_of(feature_dim, config.modalities)
        width, causal = config.width, config.causal
        self.encoder = Convolution(feature_dim, width, config.kernel, causal=causal)
        self.modality_encoders = nn.ModuleList(
            Convolution(self._part, width, 3, causal=causal) for _ in range(config.modalities)
        )
        self.modality_actionness = nn.ModuleList(
            nn.Linear(width, 1) for _ in range(config.modalities)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.second_order = SecondOrder(
            width,
            rank=config.rank,
            reference_length=config.reference_length,
            half_life=config.half_life,
        )
        self.spread = nn.Linear(self.second_order.n_dims, width)  # W₁
        nn.init.kaiming_normal_(self.spread.weight)
        self.semantics = nn.Linear(self.second_order.n_dims, n_classes)  # W₂
        self.classifier = nn.Linear(width, n_classes)
        # How sure the classes of a snippet are: mean and variance over recent batches.
        self.register_buffer("sure_mean", torch.tensor(1 / n_classes))
        self.register_buffer("sure_variance", torch.tensor(1.0))

    @override
    def forward(self, features: Tensor, valid: Tensor) -> Scores:
        """Score features (B, T, D) under valid (B, T); see the base class.

        ``parts`` of the answer holds ``logits`` S (B, T, C), ``fused`` (B, T, C), ``actionness``
        (B, T), ``each`` (B, T, M) modality's, ``embedding`` F (B, T, d), ``embedding_N`` of each
        modality and, in training, ``mixed`` (B, T, M), that of sums of two sequences.
        """
        mask = valid.to(features.dtype).unsqueeze(-1)  # (B, T, 1)
        given = features.masked_fill(mask == 0, 0.0)
        embedding = self.dropout(self.encoder(given).relu()) * mask  # F, (B, T, d)
        own, each = self._actionness(given, mask)  # (B, T, M)
        actionness = each @ self._shares(each)  # (B, T)
        v = self.second_order(embedding, mask)  # (B, r²)
        seen = self.second_order.running(embedding, mask) if self.config.causal else v.unsqueeze(1)
        logits = self.classifier(embedding + actionness.unsqueeze(-1) * self.spread(seen))
        shares = logits.softmax(dim=-1)
        weight = self.config.class_weight
        # One modality stands for both, so that the shares of the mean stay as they are.
        fused = (weight * shares + 2 * each.mean(dim=-1, keepdim=True)) / (weight + 2)
        video_scores = self._video_scores(logits, v, mask)  # (B, C)
        parts = {"logits": logits, "fused": fused, "actionness": actionness, "each": each}
        parts |= {"embedding": embedding}
        parts |= {f"embedding_{i}": one for i, one in enumerate(own)}
        if self.training:
            parts["mixed"] = self._actionness(given + given.roll(1, dims=0), mask)[1]
        if self.config.fusion == "product":
            return Scores(shares * mask, actionness, video_scores, parts)
        kept = self._kept(video_scores).unsqueeze(1)  # (B, 1, C)
        return Scores(fused * kept * mask, mask.squeeze(-1), video_scores, parts)

    @override
    def losses(self, scores: Scores, batch: BagBatch, step: int) -> dict[str, Tensor]:
        """Return the weighted terms, scalars (), by the names of ``SalConfig``."""
        parts, config = scores.parts, self.config
        layout = BagLayout(batch.bags, len(batch.tags))
        terms = self._bag_terms(parts, batch.tags, layout)
        terms |= self._actionness_terms(parts, batch)
        if config.modalities > 1:
            first, second = parts["each"].unbind(dim=-1)
            terms["mutual"] = masked_mean((first - second) ** 2, batch.valid)
        if batch.targets is not None:
            terms["frame"] = frame_cross_entropy(scores.cas, batch.targets, batch.valid)
        return weighed(terms, config)

    @override
    def after_step(self, scores: Scores, batch: BagBatch, step: int) -> None:
        """Keep how sure the classes were; see the base class."""
        mean, variance = self._sureness(scores.parts["logits"], batch.valid)
        self.sure_mean.copy_(mean)
        self.sure_variance.copy_(variance)

    def _actionness(self, features: Tensor, mask: Tensor) -> tuple[list[Tensor], Tensor]:
        """Encode each modality of (B, T, D): M times (B, T, d), and its actionness (B, T, M)."""
        embeddings = [
            self.dropout(encoder(part).relu()) * mask
            for encoder, part in zip(
                self.modality_encoders, features.split(self._part, dim=-1), strict=True
            )
        ]
        each = [
            unit(one).sigmoid()
            for unit, one in zip(self.modality_actionness, embeddings, strict=True)
        ]
        return embeddings, torch.cat(each, dim=-1) * mask

    def _shares(self, like: Tensor) -> Tensor:
        """Return the modalities' shares (M,) of the joint actionness, rgb first."""
        if self.config.modalities == 1:
            return torch.ones(1, dtype=like.dtype, device=like.device)
        share = self.config.rgb_share
        return torch.tensor([share, 1 - share], dtype=like.dtype, device=like.device)

    def _video_scores(self, logits: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Score whole sequences by logits (B, T, C) and second order v (B, r²): (B, C)."""
        share = self.config.semantic_share
        pooled = top_k_mean(logits, mask.squeeze(-1), self.config.pool_ratio)
        mixed = (1 - share) * pooled + share * self.semantics(v)
        return mixed.softmax(dim=-1) * mask.amax(dim=1)

    def _kept(self, video_scores: Tensor) -> Tensor:
        """Return which classes (B, C) are kept: 1 for those above the threshold and the best."""
        best = video_scores.amax(dim=-1, keepdim=True)
        wanted = torch.minimum(best, torch.ones_like(best) * self.config.keep)
        return (video_scores >= wanted).to(video_scores.dtype)

    def _bag_terms(
        self, parts: dict[str, Tensor], tags: Tensor, layout: BagLayout
    ) -> dict[str, Tensor]:
        """Return the terms that look at whole bags, without their weights; tags are (N, C)."""
        config, valid = self.config, layout.valid
        logits = layout.arranged(parts["logits"])  # (N, L, C)
        resting = 1 - layout.arranged(parts["actionness"].unsqueeze(-1))  # (N, L, 1)
        by = layout.arranged(parts["fused"]) if config.pool_by == "fused" else None
        pooled = top_k_mean(logits, valid, config.pool_ratio, by=by)  # (N, C)
        quiet = top_k_mean(logits * resting, valid, config.background_ratio)  # (N, C)
        names = ["embedding", *(f"embedding_{i}" for i in range(config.modalities))]
        semantic = [
            self.semantics(self.second_order(layout.arranged(parts[name]), valid.unsqueeze(-1)))
            for name in names
        ]
        return {
            "bag": tag_cross_entropy(pooled, tags),
            "background": uniformity_loss(quiet),
            "semantic": torch.stack([tag_cross_entropy(one, tags) for one in semantic]).sum(),
        }

    def _actionness_terms(self, parts: dict[str, Tensor], batch: BagBatch) -> dict[str, Tensor]:
        """Return the terms of the labels of each modality's actionness, without their weights."""
        acts = self._acting(parts, batch)  # bool (B, T)
        weights = self._surety(parts["logits"], batch.valid)  # (B, T)
        terms = {"actionness": _labelled(parts["each"], acts, weights)}
        if "mixed" in parts:
            either = acts | acts.roll(1, dims=0)
            both = (batch.valid & batch.valid.roll(1, dims=0)).to(weights.dtype)
            weights = (weights + weights.roll(1, dims=0)) / 2 * both
            terms["mixed"] = _labelled(parts["mixed"], either, weights)
        return terms

    def _acting(self, parts: dict[str, Tensor], batch: BagBatch) -> Tensor:
        """Return bool (B, T): which snippets of tagged bags are labelled to act."""
        config, valid = self.config, batch.valid
        high = top_places(
            parts["actionness"], valid, config.positive_share, extra=config.positive_extra
        )
        confidence = parts["logits"].relu().sum(dim=-1)  # (B, T)
        is_tagged = (batch.tags.sum(dim=1) > 0)[batch.bags.clamp(min=0)]  # (B, T)
        return high & top_places(confidence, valid, config.confident_share) & is_tagged

    def _sureness(self, logits: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and unbiased variance (), of the best class's share, over recent batches."""
        sure = logits.detach().softmax(dim=-1).amax(dim=-1)[valid]  # (positions,)
        if len(sure) < 2:  # noqa: PLR2004 - a variance needs two
            return self.sure_mean, self.sure_variance
        mean = _MEMORY * self.sure_mean + (1 - _MEMORY) * sure.mean()
        return mean, _MEMORY * self.sure_variance + (1 - _MEMORY) * sure.var()

    def _surety(self, logits: Tensor, valid: Tensor) -> Tensor:
        """Weigh snippets by how sure their classes (B, T, C) are: (B, T), no gradient, 0..1.

        1 from the mean on, exp(-2 (p - μ)² / σ²) below it.
        """
        mean, variance = self._sureness(logits, valid)
        below = (logits.detach().softmax(dim=-1).amax(dim=-1) - mean).clamp(max=0)
        weights = torch.exp(-2 * below**2 / variance.clamp(min=1e-12))
        return weights * valid.to(weights.dtype)


def _labelled(each: Tensor, acts: Tensor, weights: Tensor) -> Tensor:
    """Return the sum over modalities of their losses, of (B, T, M), labels and weights (B, T)."""
    losses = [generalised_cross_entropy(one, acts, weights) for one in each.unbind(dim=-1)]
    return torch.stack(losses).sum()
