"""SDANet: salient differences between neighbours guide the correlation of snippets.

In each modality, parallel convolutions are fused to M (MTFF). The difference of M from snippet to
snippet gives queries and keys of an attention whose values are M, and how salient a snippet is
(SDA). The modalities' answers give an actionness each, and together the classes. Ambiguous
snippets are drawn to what they resemble (``potential_features``, PFM), the modalities to each
other, and each answer shall still hold its features.

B, T: sequences and positions; N, L: bags and their positions; D, d: feature and embedding
dimensions; M: modalities; H: heads; C: classes; the background is class C.

Source: SDANet (IEEE TMM 2025, 10.1109/TMM.2025.3535336), of which only the abstract is known to
us. What it leaves open, which is every equation, is our choice; actionness, classifier and the
common losses are CO2-Net's (ACM MM 2021).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from typing_extensions import override

from training.networks.attention import attended, visible
from training.networks.base import BagBatch, Network, Scores, part_of
from training.networks.losses import (
    BagLayout,
    co_activity_loss,
    frame_cross_entropy,
    guide_loss,
    masked_mean,
    multiple_instance_loss,
    mutual_loss,
    sparsity_loss,
    suppressed,
    top_k_mean,
    weighed,
)
from training.networks.neighbourhood import shifted
from training.networks.normalization import LayerNorm
from training.networks.potential_features import mined, potential_loss
from training.networks.trunks import Convolution, ConvolutionClassifier

_SLOPE = 0.2  # of the leaky rectifiers, as in CO2-Net
_KERNELS = (1, 3, 5)
_FAINT = 1e-6  # saliency whose logarithm is taken is at least this


@dataclass(frozen=True, slots=True)
class SdaNetConfig:
    """Parts and losses; a weight of 0 switches a loss off.

    Attributes:
        modalities: Equal parts of the feature vector: 2 for rgb|flow, 1 for rgb alone.
        width: Dimensions of one modality's embedding.
        fused_width: d, of the embedding of all.
        heads: H, a divisor of width.
        causal: True lets no snippet see later ones, for live use.
        attention_dropout: Share dropped in the actionness heads.
        dropout: Share dropped of the embedding and in the classifier.
        pool_ratio: A bag pools the best 1/ratio of its snippets.
        temperature: Of the contrast of potential features.
        bag: Weight of the loss that holds bag scores to the tags.
        suppressed_bag: Weight of the same after suppression by actionness.
        sparsity: Weight of the loss that wants actions to be rare.
        guide: Weight of the loss that wants actionness and background to be opposites.
        co_activity: Weight of the loss that wants bags of one class to look alike.
        potential: Weight of the contrast of potential features.
        similarity: Weight of the loss that wants two modalities to agree.
        reconstruction: Weight of the loss that wants each answer to hold its features.
        frame: Weight of the loss that holds snippet scores to the pseudo labels of a second
            round, where a batch has them.
    """

    modalities: Literal[1, 2]
    width: int
    fused_width: int
    heads: int
    causal: bool
    attention_dropout: float
    dropout: float
    pool_ratio: int
    temperature: float
    bag: float
    suppressed_bag: float
    sparsity: float
    guide: float
    co_activity: float
    potential: float
    similarity: float
    reconstruction: float
    frame: float

    def __post_init__(self) -> None:
        for name in ("width", "fused_width", "heads", "pool_ratio"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, wanted 1 or more")
        if self.width % self.heads:
            raise ValueError(f"heads is {self.heads}: width must be a multiple of it")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}, wanted more than 0")
        if self.similarity and self.modalities == 1:
            raise ValueError("similarity needs two modalities")


class SdaNet(Network):
    """The network and its objective.

    Of its answer, ``cas`` is a softmax without its background, ``attention`` the modalities' mean
    actionness. ``video_scores`` are pooled after suppression by it.

    Args:
        config: Parts and losses.
        feature_dim: D.
        n_classes: C.

    Raises:
        DataError: The features cannot be parted evenly.
    """

    def __init__(self, config: SdaNetConfig, *, feature_dim: int, n_classes: int) -> None:
        super().__init__()
        self.config, self._n_classes = config, n_classes
        self._part = part_of(feature_dim, config.modalities)
        width = config.width
        self.encoders = nn.ModuleList(
            nn.ModuleDict(
                {
                    "scales": MultiScale(self._part, width, causal=config.causal),
                    "differences": DifferenceAttention(width, config.heads, causal=config.causal),
                    "actionness": ActionnessHead(config),
                    "decoder": nn.Linear(width, self._part),
                }
            )
            for _ in range(config.modalities)
        )
        self.fusion = nn.Linear(config.modalities * width, config.fused_width)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = ConvolutionClassifier(
            config.fused_width, n_classes + 1, config.dropout, causal=config.causal
        )
        is_compared = config.modalities > 1
        self.compared = nn.Linear(width, width, bias=False) if is_compared else None

    @override
    def forward(self, features: Tensor, valid: Tensor) -> Scores:
        """Score features (B, T, D) under valid (B, T); see the base class.

        ``parts`` of the answer holds ``logits`` (B, T, C + 1), ``embedding`` (B, T, d), ``each``
        (B, T, M) modality's actionness, and of each ``features_N`` (B, T, width) and ``apart_N``
        (B, T), how far what is decoded of it is from what was given.
        """
        mask = valid.to(features.dtype).unsqueeze(-1)  # (B, T, 1)
        given = features.masked_fill(mask == 0, 0.0).split(self._part, dim=-1)
        encoded = [
            encoder["differences"](encoder["scales"](part, mask), mask)
            for encoder, part in zip(self.encoders, given, strict=True)
        ]
        each = torch.cat(  # (B, T, M)
            [
                encoder["actionness"](one, mask)
                for encoder, one in zip(self.encoders, encoded, strict=True)
            ],
            dim=-1,
        )
        attention = each.mean(dim=-1)  # (B, T)
        fused = F.leaky_relu(self.fusion(torch.cat(encoded, dim=-1)), _SLOPE)
        embedding = self.dropout(fused) * mask  # (B, T, d)
        logits = self.classifier(embedding, mask)
        parts = {"logits": logits, "embedding": embedding, "each": each}
        for i, (encoder, one) in enumerate(zip(self.encoders, encoded, strict=True)):
            apart = (encoder["decoder"](one) - given[i]).square().mean(dim=-1)
            parts |= {f"features_{i}": one, f"apart_{i}": apart}
        cas = logits.softmax(dim=-1)[..., : self._n_classes] * mask
        pooled = top_k_mean(
            suppressed(logits, attention), mask.squeeze(-1), self.config.pool_ratio
        )
        video_scores = pooled.softmax(dim=-1)[..., : self._n_classes] * mask.amax(dim=1)
        return Scores(cas, attention, video_scores, parts)

    @override
    def losses(self, scores: Scores, batch: BagBatch, step: int) -> dict[str, Tensor]:
        """Return the weighted terms, scalars (), by the names of ``SdaNetConfig``."""
        parts, valid, config = scores.parts, batch.valid, self.config
        layout = BagLayout(batch.bags, len(batch.tags))
        terms = self._bag_terms(scores, batch.tags, layout)
        joint = [scores.attention] if config.modalities > 1 else []
        curves = [*joint, *parts["each"].unbind(dim=-1)]
        sparse = [sparsity_loss(one, valid) for one in curves]
        guided = [guide_loss(one, parts["logits"], valid) for one in curves]
        held = [masked_mean(parts[f"apart_{i}"], valid) for i in range(config.modalities)]
        terms |= {
            "sparsity": torch.stack(sparse).mean(),
            "guide": torch.stack(guided).mean(),
            "reconstruction": torch.stack(held).mean(),
        }
        if self.compared is not None:
            terms["similarity"] = self._similarity(parts, valid, self.compared)
        if batch.targets is not None:
            terms["frame"] = frame_cross_entropy(scores.cas, batch.targets, valid)
        return weighed(terms, config)

    def _bag_terms(self, scores: Scores, tags: Tensor, layout: BagLayout) -> dict[str, Tensor]:
        """Return the terms that look at whole bags, without their weights; tags are (N, C)."""
        parts, valid, ratio = scores.parts, layout.valid, self.config.pool_ratio
        logits, embedding = (layout.arranged(parts[name]) for name in ("logits", "embedding"))
        attention = layout.arranged(scores.attention.unsqueeze(-1)).squeeze(-1)  # (N, L)
        acting = suppressed(logits, attention)
        sets = mined(embedding, attention, layout.arranged(parts["each"]), valid)
        is_tagged = tags.sum(dim=1) > 0
        return {
            "bag": multiple_instance_loss(top_k_mean(logits, valid, ratio), tags, background=1),
            "suppressed_bag": multiple_instance_loss(
                top_k_mean(acting, valid, ratio), tags, background=0
            ),
            "co_activity": co_activity_loss(embedding, acting, tags, valid),
            "potential": potential_loss(embedding, sets, is_tagged, self.config.temperature),
        }

    @staticmethod
    def _similarity(parts: dict[str, Tensor], valid: Tensor, compared: nn.Linear) -> Tensor:
        """Return how far two modalities' embeddings and actionness are apart, a scalar ()."""
        first, second = (compared(parts[f"features_{i}"]) for i in range(2))
        angle = 1 - F.cosine_similarity(first, second, dim=-1)  # (B, T)
        rgb, flow = parts["each"].unbind(dim=-1)
        return masked_mean(angle, valid) + mutual_loss(rgb, flow, valid)


class MultiScale(nn.Module):
    """Parallel convolutions of kernel 1, 3 and 5, fused, beside a linear map of the input (MTFF).

    Args:
        n_in: Dimensions of a modality's features.
        width: Dimensions of the answer.
        causal: Whether they see earlier snippets alone.
    """

    def __init__(self, n_in: int, width: int, *, causal: bool) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            Convolution(n_in, width, kernel, causal=causal) for kernel in _KERNELS
        )
        self.fusion = nn.Linear(len(_KERNELS) * width, width)
        self.residual = nn.Linear(n_in, width)

    @override
    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Fuse (B, T, n_in) under mask (B, T, 1): M, (B, T, width)."""
        seen = [F.leaky_relu(scale(features), _SLOPE) for scale in self.scales]
        return (self.fusion(torch.cat(seen, dim=-1)) + self.residual(features)) * mask


class DifferenceAttention(nn.Module):
    """Attention whose queries, keys and saliency come from differences, its values from M (SDA).

    Δ_t = ½ (|M_t - M_{t-1}| + |M_{t+1} - M_t|), of which the causal form takes |M_t - M_{t-1}|
    alone. D = W Δ, w = sigmoid(u D), A = softmax(Q_D K_Dᵀ / √e + log w), F = LN(M + W_o A V_M),
    and a layer of twice the width follows.

    Args:
        width: Dimensions of M.
        heads: H.
        causal: Whether a snippet attends to earlier ones and itself alone.
    """

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self._heads, self._causal = heads, causal
        self.difference = nn.Linear(width, width)
        self.saliency = nn.Linear(width, 1)
        self.query, self.key = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.value, self.out = (nn.Linear(width, width) for _ in range(2))
        self.inner, self.outer = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norms = nn.ModuleList(LayerNorm(width) for _ in range(2))

    @override
    def forward(self, fused: Tensor, mask: Tensor) -> Tensor:
        """Correlate M (B, T, width) under mask (B, T, 1): F, (B, T, width)."""
        salient = self.difference(self._differences(fused, mask))  # D, (B, T, width)
        weight = self.saliency(salient).sigmoid().transpose(1, 2)  # w, (B, 1, T)
        read = attended(
            self.query(salient),
            self.key(salient),
            self.value(fused),
            self._heads,
            allowed=visible(mask, causal=self._causal),
            bias=(weight + _FAINT).log().unsqueeze(1),
        )
        correlated = self.norms[0](fused + self.out(read))
        hidden = self.outer(self.inner(correlated).relu())
        return self.norms[1](correlated + hidden) * mask

    def _differences(self, fused: Tensor, mask: Tensor) -> Tensor:
        """Return Δ, (B, T, width); a neighbour that is not there differs in nothing."""
        before = (fused - shifted(fused, -1)).abs() * mask * shifted(mask, -1)
        return before if self._causal else (before + shifted(before, 1)) / 2


class ActionnessHead(nn.Module):
    """CO2-Net's: two convolutions and a linear unit.

    Args:
        config: Widths and dropout.
    """

    def __init__(self, config: SdaNetConfig) -> None:
        super().__init__()
        width, causal = config.width, config.causal
        self.first = Convolution(width, width, 3, causal=causal)
        self.second = Convolution(width, width, 3, causal=causal)
        self.unit = nn.Linear(width, 1)
        self.dropout = nn.Dropout(config.attention_dropout)

    @override
    def forward(self, embedding: Tensor, mask: Tensor) -> Tensor:
        """Return the actionness (B, T, 1) of (B, T, width) under mask (B, T, 1)."""
        hidden = self.dropout(F.leaky_relu(self.first(embedding), _SLOPE)) * mask
        hidden = F.leaky_relu(self.second(hidden), _SLOPE)
        return self.unit(hidden).sigmoid() * mask
