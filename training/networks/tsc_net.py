"""TSC-Net: a pyramid of convolutions, correlation over time, a bank of the data set's semantics.

The features pass three convolutions of growing kernel (MFIP), whose answers are fused to M. The
time branch adds self-attention over all snippets (TCE), F^t = M + .... The bank branch lets each
snippet read a learned bank of C + 1 vectors, which starts at the data set's own (DSA), F^c. Each
branch has its own classes and actionness; their weighted mean is the answer.

B, T: sequences and positions; N, L: bags and their positions; D: feature dimensions; d: width;
H: heads; C: classes; the background is class C.

Source: the published code of TSC-Net, which stands on CO2-Net (ACM MM 2021). Ours are where the
bank comes from (``semantics_bank``), a narrower form, and the causal form, in which convolutions
and attention see earlier snippets alone.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from typing_extensions import override

from engine.errors import DataError
from training.networks.attention import attended, visible
from training.networks.base import BagBatch, Network, Scores
from training.networks.losses import (
    BagLayout,
    co_activity_loss,
    frame_cross_entropy,
    guide_loss,
    masked_mean,
    multiple_instance_loss,
    suppressed,
    top_k_mean,
    weighed,
)
from training.networks.semantics_bank import fit_bank, read_bank
from training.networks.trunks import Convolution

_SLOPE = 0.2  # of the leaky rectifiers, as in CO2-Net
_BRANCHES = ("time", "bank")


@dataclass(frozen=True, slots=True)
class TscNetConfig:
    """Parts and losses; a weight of 0 switches a loss off.

    Attributes:
        width: d; 0 takes the features as they are (d = D), as published, another number a linear
            map of them, which makes the network smaller by the square.
        causal: True lets no snippet see later ones, for live use.
        heads: H of the attention over time, a divisor of d.
        bank_heads: H of the attention to the bank.
        bank_head_width: Dimensions of each of those.
        bank: File of ``s2net build-bank``; empty, and the bank is made of the training's snippets.
        bank_rows: Vectors of the bank; 0 for C + 1.
        attention_width: Channels of the actionness heads.
        dropout: Share dropped of classifiers and of what is read from the bank.
        attention_dropout: Share dropped in the actionness heads, before their sigmoid too.
        time_share: Share of the time branch in the answer; the rest is the bank branch's.
        pool_ratio: A bag pools the best 1/ratio of its snippets.
        bag: Weight of the loss that holds bag scores to the tags, in each branch.
        suppressed_bag: Weight of the same after suppression by actionness.
        guide: Weight of the loss that wants actionness and background to be opposites.
        co_activity: Weight of the loss that wants bags of one class to look alike.
        reconstruction: Weight of the loss that wants the bank branch's embedding near M.
        frame: Weight of the loss that holds snippet scores to the pseudo labels of a second
            round, where a batch has them.
    """

    width: int
    causal: bool
    heads: int
    bank_heads: int
    bank_head_width: int
    bank: str
    bank_rows: int
    attention_width: int
    dropout: float
    attention_dropout: float
    time_share: float
    pool_ratio: int
    bag: float
    suppressed_bag: float
    guide: float
    co_activity: float
    reconstruction: float
    frame: float

    def __post_init__(self) -> None:
        for name in ("heads", "bank_heads", "bank_head_width", "attention_width", "pool_ratio"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, wanted 1 or more")
        if self.width < 0 or self.bank_rows < 0:
            raise ValueError("width and bank_rows are 0 or more")
        if self.width % self.heads:
            raise ValueError(f"heads is {self.heads}: width must be a multiple of it")
        if not 0 <= self.time_share <= 1:
            raise ValueError(f"time_share is {self.time_share}, wanted 0 to 1")


class TscNet(Network):
    """The network and its objective.

    Of its answer, ``cas`` is a softmax of the mean logits without the background,
    ``attention`` the mean actionness. ``video_scores`` are pooled after suppression by it.

    Args:
        config: Parts and losses.
        feature_dim: D.
        n_classes: C.

    Raises:
        DataError: The features' width is no multiple of the heads.
    """

    def __init__(self, config: TscNetConfig, *, feature_dim: int, n_classes: int) -> None:
        super().__init__()
        self.config, self._n_classes = config, n_classes
        width = config.width or feature_dim
        if width % config.heads:
            raise DataError(f"heads is {config.heads}, but the features have {width} dimensions")
        self.entry = nn.Linear(feature_dim, width) if config.width else None
        self.pyramid = Pyramid(width, causal=config.causal)
        self.correlation = Correlation(width, config.heads, causal=config.causal)
        rows = config.bank_rows or n_classes + 1
        self.reader = BankReader(config, width, rows, feature_dim)
        self.heads = nn.ModuleDict(
            {name: BranchHead(config, width, n_classes + 1) for name in _BRANCHES}
        )

    @override
    def fit_input(self, rows: Tensor, tags: Tensor, n_videos: int) -> None:
        """Start the bank at what rows (N, D) look like, or at what the bank's file says."""
        del tags, n_videos
        bank = self.reader.bank
        if self.config.bank:
            vectors = torch.from_numpy(read_bank(Path(self.config.bank), *bank.shape))
        else:
            vectors = fit_bank(rows, len(bank))
        with torch.no_grad():
            bank.copy_(vectors)

    @override
    def forward(self, features: Tensor, valid: Tensor) -> Scores:
        """Score features (B, T, D) under valid (B, T); see the base class.

        ``parts`` of the answer holds ``fused`` M (B, T, d) and, of each branch, NAME_features
        (B, T, d), NAME_logits (B, T, C + 1) and NAME_actionness (B, T).
        """
        mask = valid.to(features.dtype).unsqueeze(-1)  # (B, T, 1)
        given = features.masked_fill(mask == 0, 0.0)
        if self.entry is not None:
            given = self.entry(given) * mask  # (B, T, d)
        queries, fused = self.pyramid(given, mask)
        embeddings = {
            "time": self.correlation(fused, mask),
            "bank": self.reader(queries, self.entry, mask),
        }
        parts = {"fused": fused}
        for name, embedding in embeddings.items():
            logits, actionness = self.heads[name](embedding, mask)
            parts |= {f"{name}_features": embedding, f"{name}_logits": logits}
            parts |= {f"{name}_actionness": actionness}
        logits, attention = self._mean(parts, "logits"), self._mean(parts, "actionness")
        cas = logits.softmax(dim=-1)[..., : self._n_classes] * mask
        pooled = top_k_mean(
            suppressed(logits, attention), mask.squeeze(-1), self.config.pool_ratio
        )
        video_scores = pooled.softmax(dim=-1)[..., : self._n_classes] * mask.amax(dim=1)
        return Scores(cas, attention, video_scores, parts)

    @override
    def losses(self, scores: Scores, batch: BagBatch, step: int) -> dict[str, Tensor]:
        """Return the weighted terms, scalars (), by the names of ``TscNetConfig``.

        Those of both branches are summed up.
        """
        config, parts = self.config, scores.parts
        layout = BagLayout(batch.bags, len(batch.tags))
        branches = [self._branch_terms(parts, name, batch.tags, layout) for name in _BRANCHES]
        terms = {name: branches[0][name] + branches[1][name] for name in branches[0]}
        apart = (parts["bank_features"] - parts["fused"]).square().mean(dim=-1)  # (B, T)
        terms["reconstruction"] = masked_mean(apart, batch.valid)
        if batch.targets is not None:
            terms["frame"] = frame_cross_entropy(scores.cas, batch.targets, batch.valid)
        return weighed(terms, config)

    def _branch_terms(
        self, parts: dict[str, Tensor], branch: str, tags: Tensor, layout: BagLayout
    ) -> dict[str, Tensor]:
        """Return one branch's terms, without their weights; tags are (N, C)."""
        valid, ratio = layout.valid, self.config.pool_ratio
        logits = layout.arranged(parts[f"{branch}_logits"])  # (N, L, C + 1)
        actionness = layout.arranged(parts[f"{branch}_actionness"].unsqueeze(-1)).squeeze(-1)
        acting = suppressed(logits, actionness)
        features = layout.arranged(parts[f"{branch}_features"])  # (N, L, d)
        plain, held = (top_k_mean(one, valid, ratio) for one in (logits, acting))
        return {
            "bag": multiple_instance_loss(plain, tags, background=1),
            "suppressed_bag": multiple_instance_loss(held, tags, background=0),
            "guide": guide_loss(actionness, logits, valid),
            "co_activity": co_activity_loss(features, acting, tags, valid),
        }

    def _mean(self, parts: dict[str, Tensor], what: str) -> Tensor:
        """Return the weighted mean over both branches of a part, (B, T, ...)."""
        share = self.config.time_share
        return share * parts[f"time_{what}"] + (1 - share) * parts[f"bank_{what}"]


class Pyramid(nn.Module):
    """Convolutions of kernel 1, 3 and 5, each on the sum of what came before it, and their fusion.

    Args:
        width: d.
        causal: Whether they see earlier snippets alone.
    """

    def __init__(self, width: int, *, causal: bool) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            Convolution(width, width, kernel, causal=causal) for kernel in (1, 3, 5)
        )
        self.fusion = Convolution(3 * width, width, 3, causal=causal)

    @override
    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Pass (B, T, d) under mask (B, T, 1): X2, what the last level sees, and M, (B, T, d)."""
        answers: list[Tensor] = []
        seen = features
        for level in self.levels:
            seen = seen + answers[-1] if answers else seen
            answers.append(level(seen) * mask)
        fused = self.fusion(torch.cat(answers, dim=-1))
        return seen, F.leaky_relu(fused, _SLOPE) * mask


class Correlation(nn.Module):
    """Self-attention over time whose answer is added; a normalisation of gain 0 starts it at none.

    Args:
        width: d.
        heads: H.
        causal: Whether a snippet attends to earlier ones and itself alone.
    """

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self._heads, self._causal = heads, causal
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm = SilentNorm(width)

    @override
    def forward(self, fused: Tensor, mask: Tensor) -> Tensor:
        """Add to M (B, T, d) what it reads of all of M, under mask (B, T, 1): (B, T, d)."""
        query, key, value = self.query(fused), self.key(fused), self.value(fused)
        allowed = visible(mask, causal=self._causal)
        read = attended(query, key, value, self._heads, allowed=allowed)
        return fused + self.norm(self.out(read), mask) * mask


class BankReader(nn.Module):
    """Each snippet attends to a learned bank; two silent residual steps follow, and the embedding.

    Args:
        config: Heads and dropout.
        width: d.
        n_rows: K, the number of the bank's vectors.
        feature_dim: D, their width.
    """

    def __init__(self, config: TscNetConfig, width: int, n_rows: int, feature_dim: int) -> None:
        super().__init__()
        inner = config.bank_heads * config.bank_head_width
        self._heads = config.bank_heads
        self.bank = nn.Parameter(F.normalize(torch.randn(n_rows, feature_dim), dim=1))
        self.query, self.key, self.value = (nn.Linear(width, inner, bias=False) for _ in range(3))
        self.out = nn.Linear(inner, width, bias=False)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.norms = nn.ModuleList(SilentNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)

    @override
    def forward(self, queries: Tensor, entry: nn.Linear | None, mask: Tensor) -> Tensor:
        """Read the bank for queries X2 (B, T, d) under mask (B, T, 1): F^c (B, T, d).

        Args:
            queries: X2.
            entry: The map from features to embeddings, for the bank lies among the features.
            mask: 1 where valid.
        """
        rows = (self.bank if entry is None else entry(self.bank)).unsqueeze(0)  # (1, K, d)
        query = self.query(queries) * self._heads**-0.5  # the published code scales twice
        key, value = self.key(rows), self.value(rows)  # (1, K, H x its width)
        read = attended(query, key, value, self._heads, dropout=self.dropout)
        step = self.dropout(self.norms[0](self.out(read), mask)) + queries
        step = self.dropout(self.norms[1](step, mask)) + queries
        hidden = self.dropout(self.first(step).relu())
        return (step + self.norms[2](self.second(hidden), mask)) * mask


class BranchHead(nn.Module):
    """Classes and actionness of one branch.

    Args:
        config: Widths and dropout.
        width: d.
        n_logits: C + 1.
    """

    def __init__(self, config: TscNetConfig, width: int, n_logits: int) -> None:
        super().__init__()
        inner, causal = config.attention_width, config.causal
        self.hidden = Convolution(width, width, 3, causal=causal)
        self.logits = nn.Linear(width, n_logits)
        self.first = Convolution(width, inner, 3, causal=causal)
        self.second = Convolution(inner, inner, 3, causal=causal)
        self.actionness = nn.Linear(inner, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.attention_dropout = nn.Dropout(config.attention_dropout)

    @override
    def forward(self, embedding: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Score (B, T, d) under mask (B, T, 1): logits (B, T, C + 1), actionness (B, T)."""
        hidden = self.dropout(F.leaky_relu(self.hidden(embedding), _SLOPE))
        logits = F.leaky_relu(self.logits(hidden), _SLOPE)
        inner = self.attention_dropout(F.leaky_relu(self.first(embedding), _SLOPE)) * mask
        inner = F.leaky_relu(self.second(inner), _SLOPE)
        # Dropped before the sigmoid, as published: there the actionness is one half.
        act = self.attention_dropout(self.actionness(inner)).sigmoid() * mask
        return logits, act.squeeze(-1)


class SilentNorm(nn.Module):
    """Batch normalisation over valid snippets whose gain starts at 0, so that its part is silent.

    Args:
        width: d.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.BatchNorm1d(width)
        nn.init.zeros_(self.inner.weight)

    @override
    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Normalise (B, T, d); in training by the statistics of where mask (B, T, 1) is 1."""
        if not self.training:
            return self.inner(values.transpose(1, 2)).transpose(1, 2)
        kept = mask.squeeze(-1) > 0  # (B, T)
        return values.new_zeros(values.shape).masked_scatter(
            kept.unsqueeze(-1), self.inner(values[kept]).to(values.dtype)
        )
