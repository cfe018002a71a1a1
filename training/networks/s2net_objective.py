"""S2Net's objective: weighted terms of the loss library, arranged bag by bag.

N, L: bags and their positions; C: classes; d: embedding dimensions.
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
    """A network's answer, one row a bag: (N, L, C), (N, L, C or C + 1), (N, L), bool (N, L)."""

    cas: Tensor
    logits: Tensor
    actionness: Tensor
    valid: Tensor


class S2NetObjective:
    """What one step minimises.

    Args:
        config: Weights; a weight of 0 leaves its term out.
    """

    def __init__(self, config: S2NetConfig) -> None:
        self._config = config
        self._weights = config.objective

    def losses(
        self, scores: Scores, batch: BagBatch, step: int, prototypes: Prototypes | None
    ) -> dict[str, Tensor]:
        """Weighted terms by the names of ``ObjectiveConfig``."""
        layout = BagLayout(batch.bags, len(batch.tags))
        bags = _arranged(scores, layout)
        terms = self._bag_terms(scores, bags, batch.tags, layout)
        terms |= self._actionness_terms(scores, batch)
        if batch.targets is not None and self._weights.frame:
            terms["frame"] = frame_cross_entropy(scores.cas, batch.targets, batch.valid)
        weighted = {name: getattr(self._weights, name) * term for name, term in terms.items()}
        return weighted | self._semantic_terms(scores, batch, step, prototypes, layout)

    def vectors(self, scores: Scores, batch: BagBatch) -> Tensor:
        """Each bag's vector for each class and, last, for its background: (N, C + 1, d)."""
        layout = BagLayout(batch.bags, len(batch.tags))
        bags = _arranged(scores, layout)
        if self._weights.actionness:
            showing = bags.cas * bags.actionness.unsqueeze(-1)
            resting = 1 - bags.actionness.unsqueeze(-1)
        else:
            showing, resting = bags.cas, 1 - bags.cas.max(dim=-1, keepdim=True).values
        weights = torch.cat([showing, resting], dim=-1) * bags.valid.unsqueeze(-1)
        features = layout.arranged(scores.parts["features"])
        return bag_vectors(features, weights, bags.valid, self._config.prototypes.pool_ratio)

    def _bag_terms(
        self, scores: Scores, bags: _Bags, tags: Tensor, layout: BagLayout
    ) -> dict[str, Tensor]:
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
        if self._weights.pooling == "linear_softmax":
            return bag_cross_entropy(linear_softmax_mean(cas, valid), tags)
        pooled = top_k_mean(logits, valid, self._weights.pool_ratio)
        if self._weights.activation == "softmax":
            return multiple_instance_loss(pooled, tags, background=background)
        return bag_cross_entropy(pooled.sigmoid(), tags)

    def _actionness_terms(self, scores: Scores, batch: BagBatch) -> dict[str, Tensor]:
        """Sparsity and guide are means over the joint actionness and each modality's."""
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
        """Contrast and boundary, which rise from 0 after the warm-up."""
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
            responses = layout.arranged(scores.parts.get("responses", scores.cas))
            features = layout.arranged(scores.parts["features"])
            loss = boundary_loss(features, responses, batch.tags, layout.valid)
            terms["boundary"] = rise * weights.boundary * loss
        return terms

    def _rise(self, step: int) -> float:
        """0 during warm-up, then linearly to 1 in ``ramp_steps``."""
        after = step + 1 - self._config.prototypes.warm_up_steps
        return min(max(after / max(self._weights.ramp_steps, 1), 0.0), 1.0)


def _arranged(scores: Scores, layout: BagLayout) -> _Bags:
    """What the bag losses need, one row a bag."""
    actionness = layout.arranged(scores.parts["actionness"].unsqueeze(-1)).squeeze(-1)
    cas, logits = layout.arranged(scores.cas), layout.arranged(scores.parts["logits"])
    return _Bags(cas, logits, actionness, layout.valid)
