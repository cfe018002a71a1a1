"""S2Net: semantic prototypes and sparse temporal interaction over a weakly supervised trunk.

One network serves both presets of ``s2net_config``: a switch turns each part on or off, and the
order stays. features → trunk → prototypes read in → interaction of embeddings → class logits →
prototype responses added → interaction of scores → probabilities.

B, T: sequences and positions; D, d: feature and embedding dimensions; C: classes; K: logits, C or,
with a background column, C + 1.

Source: Wang, Kong, Li, S2Net (ACM TOMM, 10.1145/3807956), of which only the abstract is known to
us. What it leaves open is our choice, and is said where it is made.
"""

import torch
from torch import Tensor, nn
from typing_extensions import override

from training.networks.base import BagBatch, Network, Scores
from training.networks.feature_interaction import FeatureInteraction
from training.networks.losses import linear_softmax_mean, suppressed, top_k_mean
from training.networks.prototypes import Prototypes, SemanticReader
from training.networks.s2net_config import S2NetConfig
from training.networks.s2net_objective import S2NetObjective
from training.networks.score_interaction import ScoreInteraction
from training.networks.trunks import (
    ConvolutionClassifier,
    Embedded,
    FilterTrunk,
    LightTrunk,
    LinearClassifier,
)


class S2Net(Network):
    """The network and its objective.

    Of its answer, ``cas`` is a sigmoid, or a softmax without its background column.
    ``attention`` is 1 where valid if no actionness is learned. Otherwise it is the actionness a
    and, once prototypes are read, ½a + ½ of the strongest class response, which recovers weakly
    activated snippets. ``video_scores`` are pooled as in training, after suppression by attention
    where the objective has that loss.

    Args:
        config: It says which parts there are.
        feature_dim: D.
        n_classes: C.

    Raises:
        DataError: The features do not fit the configuration.
    """

    def __init__(self, config: S2NetConfig, *, feature_dim: int, n_classes: int) -> None:
        super().__init__()
        trunk, objective, interaction = config.trunk, config.objective, config.interaction
        self.config, self._n_classes = config, n_classes
        self._has_background = objective.activation == "softmax"
        n_logits = n_classes + self._has_background
        if trunk.kind == "light":
            self.trunk = LightTrunk(trunk, feature_dim, actionness=objective.actionness)
            self.classifier = LinearClassifier(trunk, n_logits)
        else:
            self.trunk = FilterTrunk(trunk, feature_dim)
            self.classifier = ConvolutionClassifier(trunk.width, n_logits, trunk.dropout)
        prototypes = config.prototypes
        is_guided = prototypes.source != "none"
        self.prototypes = Prototypes(prototypes, n_classes, trunk.width) if is_guided else None
        self.reader = SemanticReader(trunk.width, prototypes.heads) if prototypes.inject else None
        # The factor of prototype responses in the class logits; at 0 they change nothing.
        self.response_gain = nn.Parameter(torch.zeros(())) if prototypes.fuse else None
        is_on = interaction.sta or interaction.lta
        self.embedding_interaction = (
            FeatureInteraction(interaction, trunk.width)
            if is_on and interaction.level == "feature"
            else None
        )
        self.score_interaction = (
            ScoreInteraction(interaction, trunk.width, is_background_last=self._has_background)
            if is_on and interaction.level == "score"
            else None
        )
        self._objective = S2NetObjective(config)

    @override
    def fit_input(self, rows: Tensor, tags: Tensor, n_videos: int) -> None:
        """Fit the whitening on ``rows`` float32 (N, D); tags (N, C) are not needed for it."""
        del tags
        self.trunk.whitening.fit(rows, n_videos)

    @override
    def forward(self, features: Tensor, valid: Tensor) -> Scores:
        """Score features (B, T, D) under valid (B, T); see the base class.

        ``parts`` of the answer holds what the objective needs: ``logits`` (B, T, K), ``embedding``
        and ``features`` (B, T, d), ``actionness`` (B, T), one ``actionness_N`` (B, T) for each
        modality, and ``responses`` (B, T, C) in [0, 1] if there are prototypes.
        """
        mask = valid.to(features.dtype).unsqueeze(-1)  # (B, T, 1)
        embedded = self.trunk(features.masked_fill(mask == 0, 0.0), mask)
        actionness = _mean(embedded.attentions, mask)  # (B, T)
        z = embedded.embedding  # (B, T, d)
        u = z if self.reader is None else self.reader(z, self.prototypes)
        if self.embedding_interaction is not None:
            u = self.embedding_interaction(u, actionness, mask, self.prototypes)
        u = u * mask
        logits = self.classifier(u, mask)  # (B, T, K)
        responses = None if self.prototypes is None else self.prototypes(u)  # (B, T, C)
        if self.prototypes is not None and self.response_gain is not None:
            guided = logits + self._padded(self.response_gain * responses)
            logits = self.prototypes.blended(logits, guided)
        if self.score_interaction is not None:
            logits = self.score_interaction(u, logits, mask)
        attention = self._attention(embedded, actionness, responses, mask)
        parts = {"logits": logits, "embedding": z, "features": u, "actionness": actionness}
        parts |= {f"actionness_{i}": part for i, part in enumerate(embedded.attentions)}
        if responses is not None:
            parts["responses"] = responses.sigmoid()
        cas = self._activated(logits) * mask  # (B, T, C)
        return Scores(cas, attention, self._video_scores(cas, logits, attention, mask), parts)

    @override
    def losses(self, scores: Scores, batch: BagBatch, step: int) -> dict[str, Tensor]:
        """Return the weighted terms, scalars (), by the names of ``ObjectiveConfig``."""
        return self._objective.losses(scores, batch, step, self.prototypes)

    @override
    def after_step(self, scores: Scores, batch: BagBatch, step: int) -> None:
        """Move the prototypes, from half of the warm-up on."""
        if self.prototypes is None:
            return
        if 2 * (step + 1) > self.config.prototypes.warm_up_steps:
            vectors = self._objective.vectors(scores, batch).detach()  # (N, C + 1, d)
            # Every bag shows background: (N, C + 1).
            shown = torch.cat([batch.tags, torch.ones_like(batch.tags[:, :1])], dim=1)
            self.prototypes.update(vectors, shown)
        self.prototypes.end_warm_up_at(step + 1)

    def _attention(
        self, embedded: Embedded, actionness: Tensor, responses: Tensor | None, mask: Tensor
    ) -> Tensor:
        """Return the attention (B, T), from actionness (B, T) and responses (B, T, C)."""
        if not embedded.attentions or responses is None or self.prototypes is None:
            return actionness
        # (B, T); a class without a prototype counts as 0.
        strongest = (responses.sigmoid() * self.prototypes.seen[:-1]).max(dim=-1).values
        blended = self.prototypes.blended(actionness, (actionness + strongest) / 2)
        return blended * mask.squeeze(-1)

    def _activated(self, logits: Tensor) -> Tensor:
        """Turn logits (..., K) into class probabilities (..., C)."""
        if self._has_background:
            return logits.softmax(dim=-1)[..., : self._n_classes]
        return logits.sigmoid()

    def _video_scores(
        self, cas: Tensor, logits: Tensor, attention: Tensor, mask: Tensor
    ) -> Tensor:
        """Pool cas (B, T, C) or logits (B, T, K) to scores of the whole sequence, (B, C)."""
        objective, valid = self.config.objective, mask.squeeze(-1)  # (B, T)
        if objective.pooling == "linear_softmax":
            weight = attention.unsqueeze(-1) if objective.suppressed_bag else 1.0
            return linear_softmax_mean(cas * weight, valid)
        acting = suppressed(logits, attention) if objective.suppressed_bag else logits
        pooled = top_k_mean(acting, valid, objective.pool_ratio)  # (B, K)
        return self._activated(pooled) * valid.amax(dim=1, keepdim=True)

    def _padded(self, responses: Tensor) -> Tensor:
        """Widen (B, T, C) to (B, T, K): the background's column, if there is one, gets 0."""
        return nn.functional.pad(responses, (0, int(self._has_background)))


def _mean(attentions: tuple[Tensor, ...], mask: Tensor) -> Tensor:
    """Return the modalities' mean actionness (B, T), or 1 where valid if none is learned."""
    if not attentions:
        return mask.squeeze(-1)
    return torch.stack(attentions).mean(dim=0)
