"""S2Net's objective: weighted terms of the loss library, arranged bag by bag.

B, T: sequences and positions; N, L: bags and their positions; C: classes; d: embedding
dimensions. Every term is a scalar ().
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.networks.base import BagBatch, Scores
from training.networks.boundary import boundary_loss
from training.networks.losses import (
    BagLayout,
    bag_cross_entropy,
    co_activity_loss,
    frame_cross_entropy,
    guide_loss,
    linear_softmax_mean,
    multiple_instance_loss,
    mutual_loss,
    sparsity_loss,
    suppressed,
    top_k_mean,
)
from training.networks.prototypes import (
    Prototypes,
    bag_contrast,
    bag_vectors,
    prototype_contrast,
)
from training.networks.s2net_config import S2NetConfig


@dataclass(frozen=True, slots=True)
class _Bags:
    """A network's answer, one row a bag.

    Attributes:
        cas: (N, L, C), in [0, 1].
        logits: (N, L, C), or (N, L, C + 1) with a background column.
        actionness: (N, L), in [0, 1].
        valid: bool (N, L).
    """

    cas: Tensor
    logits: Tensor
    actionness: Tensor
    valid: Tensor


class S2NetObjective:
    """It computes what one step minimises.

    Args:
        config: Its ``objective`` holds the weights; a weight of 0 leaves its term out.
    """

    def __init__(self, config: S2NetConfig) -> None:
        self._config = config
        self._weights = config.objective

    def losses(
        self, scores: Scores, batch: BagBatch, step: int, prototypes: Prototypes | None
    ) -> dict[str, Tensor]:
        """Return the weighted terms, scalars (), by the names of ``ObjectiveConfig``.

        Args:
            scores: What the network gave for the batch.
            batch: The batch.
            step: Number of the step, from 0.
            prototypes: The network's own; None if it has none.
        """
        layout = BagLayout(batch.bags, len(batch.tags))
        bags = _arranged(scores, layout)
        terms = self._bag_terms(scores, bags, batch.tags, layout)
        terms |= self._actionness_terms(scores, batch)
        if batch.targets is not None and self._weights.frame:
            terms["frame"] = frame_cross_entropy(scores.cas, batch.targets, batch.valid)
        weighted = {name: getattr(self._weights, name) * term for name, term in terms.items()}
        return weighted | self._semantic_terms(scores, batch, step, prototypes, layout)

    def vectors(self, scores: Scores, batch: BagBatch) -> Tensor:
        """Return each bag's vector for each class and, last, for its background: (N, C + 1, d)."""
        layout = BagLayout(batch.bags, len(batch.tags))
        bags = _arranged(scores, layout)
        if self._weights.actionness:
            showing = bags.cas * bags.actionness.unsqueeze(-1)  # (N, L, C)
            resting = 1 - bags.actionness.unsqueeze(-1)  # (N, L, 1)
        else:
            showing, resting = bags.cas, 1 - bags.cas.max(dim=-1, keepdim=True).values
        weights = torch.cat([showing, resting], dim=-1) * bags.valid.unsqueeze(-1)  # (N, L, C + 1)
        features = layout.arranged(scores.parts["features"])  # (N, L, d)
        return bag_vectors(features, weights, bags.valid, self._config.prototypes.pool_ratio)

    def _bag_terms(
        self, scores: Scores, bags: _Bags, tags: Tensor, layout: BagLayout
    ) -> dict[str, Tensor]:
        """Return the terms that look at whole bags, without their weights; tags are (N, C)."""
        terms = {}
        if self._weights.bag:
            terms["bag"] = self._bag_loss(bags.cas, bags.logits, tags, bags.valid, background=1)
        if not (self._weights.suppressed_bag or self._weights.co_activity):
            return terms
        held = suppressed(bags.logits, bags.actionness)
        if self._weights.suppressed_bag:
            acting = bags.cas * bags.actionness.unsqueeze(-1)
            terms["suppressed_bag"] = self._bag_loss(acting, held, tags, bags.valid, background=0)
        if self._weights.co_activity:
            embedding = layout.arranged(scores.parts["embedding"])
            terms["co_activity"] = co_activity_loss(embedding, held, tags, bags.valid)
        return terms

    def _bag_loss(
        self, cas: Tensor, logits: Tensor, tags: Tensor, valid: Tensor, *, background: float
    ) -> Tensor:
        """Pool cas (N, L, C) or logits (N, L, C or C + 1) to bags; hold them to tags (N, C)."""
        if self._weights.pooling == "linear_softmax":
            return bag_cross_entropy(linear_softmax_mean(cas, valid), tags)
        pooled = top_k_mean(logits, valid, self._weights.pool_ratio)  # (N, C or C + 1)
        if self._weights.activation == "softmax":
            return multiple_instance_loss(pooled, tags, background=background)
        return bag_cross_entropy(pooled.sigmoid(), tags)

    def _actionness_terms(self, scores: Scores, batch: BagBatch) -> dict[str, Tensor]:
        """Return the terms of actionness (B, T), without their weights.

        Sparsity and guide are means over the joint actionness and each modality's.
        """
        parts, weights = scores.parts, self._weights
        modalities = [parts[name] for name in sorted(parts) if name.startswith("actionness_")]
        each = [parts["actionness"], *modalities] if len(modalities) > 1 else modalities
        terms = {}
        if weights.sparsity:
            sparse = [sparsity_loss(one, batch.valid) for one in each]
            terms["sparsity"] = torch.stack(sparse).mean()
        if weights.guide:
            guided = [guide_loss(one, parts["logits"], batch.valid) for one in each]
            terms["guide"] = torch.stack(guided).mean()
        if weights.mutual:
            first, second = modalities
            terms["mutual"] = mutual_loss(first, second, batch.valid)
        return terms

    def _semantic_terms(
        self,
        scores: Scores,
        batch: BagBatch,
        step: int,
        prototypes: Prototypes | None,
        layout: BagLayout,
    ) -> dict[str, Tensor]:
        """Return contrast and boundary times their weights, which rise after the warm-up."""
        rise, weights, terms = self._rise(step), self._weights, {}
        if weights.contrast and rise:
            vectors, temperature = self.vectors(scores, batch), self._config.prototypes.temperature
            contrast = (
                bag_contrast(vectors, batch.tags, temperature)
                if prototypes is None or weights.contrast_with == "bags"
                else prototype_contrast(vectors, batch.tags, prototypes, temperature)
            )
            terms["contrast"] = rise * weights.contrast * contrast
        if weights.boundary and rise:
            responses = layout.arranged(scores.parts.get("responses", scores.cas))  # (N, L, C)
            features = layout.arranged(scores.parts["features"])  # (N, L, d)
            loss = boundary_loss(features, responses, batch.tags, layout.valid)
            terms["boundary"] = rise * weights.boundary * loss
        return terms

    def _rise(self, step: int) -> float:
        """Return 0 during warm-up; after it the factor rises linearly to 1 in ``ramp_steps``."""
        after = step + 1 - self._config.prototypes.warm_up_steps
        return min(max(after / max(self._weights.ramp_steps, 1), 0.0), 1.0)


def _arranged(scores: Scores, layout: BagLayout) -> _Bags:
    """Arrange what the bag losses need from (B, T, ...) to one row a bag, (N, L, ...)."""
    actionness = layout.arranged(scores.parts["actionness"].unsqueeze(-1)).squeeze(-1)  # (N, L)
    cas, logits = layout.arranged(scores.cas), layout.arranged(scores.parts["logits"])
    return _Bags(cas, logits, actionness, layout.valid)
