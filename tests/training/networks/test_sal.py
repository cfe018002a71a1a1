"""SAL against what is published: sizes, equal answers, losses by hand, and where gradients go.

Numbers worked by hand have at most 64 roundings behind them, of which a logarithm, an exponential
or a root counts for eight (``error_bounds``); terms have one sign.
"""

import math

import numpy as np
import pytest

from engine.errors import BundleError, DataError
from tests.support.error_bounds import HALF_ULP, gamma
from tests.support.real_parts import torch_imports
from tests.support.small_networks import shipped_network, small_network, small_network_config

with torch_imports():
    import torch

    from training.networks import losses, snippet_losses
    from training.networks.base import BagBatch
    from training.networks.second_order import SecondOrder

pytestmark = [pytest.mark.torch, pytest.mark.numeric]

SHARE = 2 * gamma(64)
HALF, N_CLASSES, LENGTH = 3, 4, 24
# Sums have at most 64 terms, eight of them lead to an answer, whose parts are below 100; the root
# of what is near its floor of 1e-5 magnifies errors by at most 1 / √1e-5.
BOUND = 100 * 320 * gamma(64 * 64, HALF_ULP["float64"])


def a_network(**changes):
    fields = {"rank": 0, "reference_length": LENGTH, **changes}
    network = small_network("sal", feature_dim=2 * HALF, n_classes=N_CLASSES, **fields)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return network


def a_batch(n_videos=2, length=LENGTH):
    rng = torch.Generator().manual_seed(1)
    features = torch.randn(n_videos, length, 2 * HALF, generator=rng).abs()
    bags = torch.arange(n_videos).unsqueeze(1).expand(-1, length)
    tags = torch.eye(N_CLASSES)[:n_videos] + torch.eye(N_CLASSES)[1 : n_videos + 1]
    return BagBatch(features, bags >= 0, bags, tags.clamp(max=1))


def test_the_published_form_has_the_published_size():
    network = shipped_network("sal-thumos14", feature_dim=2048, n_classes=20)

    sizes = {name: one.numel() for name, one in network.named_parameters()}
    assert {"spread.weight": 512**3, "semantics.weight": 20 * 512**2}.items() <= sizes.items()
    assert 145_765_418 == sum(sizes.values())  # 145.77 M by the published code


def test_the_low_rank_form_is_a_seventeenth_of_it():
    low = shipped_network("sal-scenes", feature_dim=1024, n_classes=6)

    assert 64**2 == low.second_order.n_dims
    assert sum(one.numel() for one in low.parameters()) < 145_765_418 / 17


def convolved(values, layer):
    weight, bias = (one.detach().numpy() for one in (layer.inner.weight, layer.inner.bias))
    half = weight.shape[2] // 2
    padded = np.pad(values, ((half, half), (0, 0)))
    places = range(len(values))
    return (
        np.array([np.einsum("kd,odk->o", padded[t : t + 2 * half + 1], weight) for t in places])
        + bias
    )


def linear(values, layer):
    return values @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def softmax(values):
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def second_order(embedding):
    """As published: F Fᵀ / T², signed root, unit length."""
    g = (embedding.T @ embedding / len(embedding) ** 2).ravel()
    v = np.sign(g) * np.sqrt(np.abs(g) + 1e-5)
    return v / np.linalg.norm(v)


class Published:
    """The published equations in numpy, for one video X (T, 2048) at its training length."""

    def __init__(self, network, features):
        rgb, flow = features[:, :HALF], features[:, HALF:]
        self.embeddings = [
            np.maximum(convolved(values, layer), 0)
            for values, layer in (
                (features, network.encoder),
                (rgb, network.modality_encoders[0]),
                (flow, network.modality_encoders[1]),
            )
        ]
        self.rgb, self.flow = (
            1 / (1 + np.exp(-linear(values, unit)[:, 0]))
            for values, unit in zip(self.embeddings[1:], network.modality_actionness, strict=True)
        )
        self.actionness = 0.9 * self.flow + 0.1 * self.rgb
        v = second_order(self.embeddings[0])
        self.semantic = [linear(second_order(one), network.semantics) for one in self.embeddings]
        propagated = self.embeddings[0] + np.outer(self.actionness, linear(v, network.spread))
        self.cas = linear(propagated, network.classifier)
        self.fused = (softmax(self.cas) + (self.rgb + self.flow)[:, None]) / 3

    def bag_terms(self, tags):
        k = max(1, len(self.cas) // 8)
        best = np.argsort(-self.fused, axis=0)[:k]
        pooled = np.take_along_axis(self.cas, best, axis=0).mean(axis=0)
        quiet = np.sort(self.cas * (1 - self.actionness)[:, None], axis=0)[::-1][:k].mean(axis=0)
        share = tags / tags.sum()
        cost = [-(share * np.log(softmax(one))).sum() for one in (pooled, *self.semantic)]
        uniform = -np.log(len(tags)) - np.log(softmax(quiet)).mean()
        return cost[0], 3 * sum(cost[1:]), 10 * uniform


def test_equal_weights_give_the_published_answers_and_losses_of_bags():
    network, batch = a_network().double().eval(), a_batch()
    features, tags = batch.features.double(), batch.tags.double()
    batch = BagBatch(features, batch.valid, batch.bags, tags)

    with torch.no_grad():
        scores = network(features, batch.valid)
        terms = network.losses(scores, batch, step=0)

    videos = [Published(network, video) for video in features.numpy()]
    for b, video in enumerate(videos):
        np.testing.assert_allclose(scores.parts["logits"][b], video.cas, rtol=0, atol=BOUND)
        np.testing.assert_allclose(scores.parts["fused"][b], video.fused, rtol=0, atol=BOUND)
        top = np.sort(video.cas, axis=0)[::-1][: LENGTH // 8].mean(axis=0)
        kept = softmax(0.35 * top + 0.65 * video.semantic[0])
        np.testing.assert_allclose(scores.video_scores[b], kept, rtol=0, atol=BOUND)
        is_kept = (kept >= 0.25) | (kept == kept.max())
        np.testing.assert_allclose(scores.cas[b], video.fused * is_kept, rtol=0, atol=BOUND)
    bags = np.mean([video.bag_terms(y) for video, y in zip(videos, tags.numpy(), strict=True)], 0)
    seen = [terms[name].item() for name in ("bag", "semantic", "background")]
    np.testing.assert_allclose(seen, bags, rtol=0, atol=BOUND)
    mutual = 5 * np.mean([(video.rgb - video.flow) ** 2 for video in videos])
    assert mutual == pytest.approx(terms["mutual"].item(), rel=0, abs=BOUND)


def test_another_length_of_the_same_footage_is_the_same_to_the_second_order():
    second = SecondOrder(4, rank=0, reference_length=6, half_life=10)
    once, mask = torch.randn(1, 6, 4).double(), torch.ones(1, 6, 1).double()

    twice = second(torch.cat([once, once], dim=1), torch.cat([mask, mask], dim=1))

    wanted = second_order(once[0].numpy())
    for seen in (second(once, mask), twice):
        np.testing.assert_allclose(seen[0].numpy(), wanted, rtol=0, atol=BOUND)


def test_the_running_second_order_is_a_mean_that_forgets():
    second = SecondOrder(2, rank=0, reference_length=1, half_life=1)
    steps, mask = torch.eye(2).unsqueeze(0).double(), torch.ones(1, 2, 1).double()

    seen = second.running(steps, mask)[0]

    # First diag(1, 0); then a third of it, as weights are ½ and 1, and two thirds of diag(0, 1).
    for row, diagonal in zip(seen, ((1.0, 0.0), (1 / 3, 2 / 3)), strict=True):
        g = np.diag(diagonal).ravel()
        v = np.sign(g) * np.sqrt(g + 1e-5)
        np.testing.assert_allclose(row.numpy(), v / np.linalg.norm(v), rtol=0, atol=BOUND)


def test_a_long_memory_ends_where_the_whole_sequence_does():
    second = SecondOrder(3, rank=2, reference_length=9, half_life=10**12)
    embedding, mask = torch.randn(2, 9, 3), torch.ones(2, 9, 1)
    mask[1, 4:] = 0

    with torch.no_grad():
        seen, whole = second.double().running(embedding.double(), mask.double()), None
        whole = second(embedding.double(), mask.double())

    np.testing.assert_allclose(seen[:, -1].numpy(), whole.numpy(), rtol=0, atol=1e-6)


def test_the_generalised_loss_means_what_acts_and_what_rests_apart():
    p = torch.tensor([[0.25, 1.0, 0.75, 0.9], [0.36, 0.5, 0.5, 0.5]])
    acts = torch.tensor([[True, True, False, False], [False, False, False, False]])
    weights = torch.tensor([[1.0, 0.5, 1, 0], [1, 0, 0, 0]])

    # q = ½: 2 (1 - √p). Row 0: (1 · 1 + .5 · 0) / 1.5, and 2 (1 - √.25); row 1: 2 (1 - √.64).
    wanted = ((1 / 1.5 + 1) + 0.4) / 2
    seen = snippet_losses.generalised_cross_entropy(p, acts, weights).item()
    assert wanted == pytest.approx(seen, rel=8 * SHARE)  # 1 - √.64 loses less than a digit


def test_the_generalised_loss_has_a_slope_everywhere():
    p = torch.tensor([[0.0, 1.0, 0.0, 1.0]], requires_grad=True)
    acts = torch.tensor([[True, True, False, False]])

    snippet_losses.generalised_cross_entropy(p, acts, torch.tensor([[0.0, 1, 1, 0]])).backward()

    assert torch.isfinite(p.grad).all()


def test_no_class_stands_out_where_all_are_alike():
    assert 0 == pytest.approx(losses.uniformity_loss(torch.zeros(1, 2)).item(), abs=SHARE)
    # softmax (¼, ¾): ½ log(½ / ¼) + ½ log(½ / ¾)
    seen = losses.uniformity_loss(torch.tensor([[0, math.log(3)]])).item()
    assert (math.log(2) - math.log(1.5)) / 2 == pytest.approx(seen, rel=8 * SHARE)


def test_tags_share_a_target_without_background():
    seen = losses.tag_cross_entropy(torch.zeros(2, 4), torch.tensor([[1.0, 1, 0, 0], [0] * 4]))

    assert math.log(4) / 2 == pytest.approx(seen.item(), rel=SHARE)


@pytest.mark.parametrize(
    ("share", "extra", "wanted"),
    [(0.5, 0, [1, 3]), (0.25, 1, [1, 3]), (0.8, 0, [0, 1, 3]), (0, 0, []), (1, 9, [0, 1, 2, 3])],
)
def test_the_highest_places_are_taken(share, extra, wanted):
    values = torch.tensor([[2.0, 5, 1, 4, 99]])
    valid = torch.tensor([[True, True, True, True, False]])

    seen = snippet_losses.top_places(values, valid, share, extra=extra)

    assert wanted == torch.nonzero(seen[0]).flatten().tolist()


def test_forty_of_fifty_snippets_are_positive_on_activitynet():
    seen = snippet_losses.top_places(torch.rand(1, 50), torch.ones(1, 50, dtype=torch.bool), 0.8)

    assert 40 == seen.sum()


def test_others_may_say_which_values_are_pooled():
    values = torch.tensor([[[1.0], [2], [3], [4]]])
    by = torch.tensor([[[9.0], [8], [1], [2]]])

    valid = torch.ones(1, 4, dtype=torch.bool)
    assert [[1.5]] == losses.top_k_mean(values, valid, 2, by=by).tolist()


def test_labels_of_actionness_are_what_scores_high_in_both():
    network, batch = a_network(positive_share=0.25, positive_extra=1), a_batch(1, 8)
    actionness = torch.tensor([[8.0, 7, 6, 5, 4, 3, 2, 1]])  # its best 3
    surest = torch.tensor([0.0, 9, 9, 9, 9, 0, 0, 0])  # its best 4
    logits = torch.zeros(1, 8, N_CLASSES)
    logits[0, :, 2] = surest
    parts = {"actionness": actionness, "logits": logits}

    acting = network._acting(parts, batch)
    nothing = BagBatch(batch.features, batch.valid, batch.bags, torch.zeros(1, N_CLASSES))

    assert [1, 2] == torch.nonzero(acting[0]).flatten().tolist()
    assert not network._acting(parts, nothing).any()


def test_what_is_less_sure_than_usual_weighs_less():
    network = a_network()
    logits = torch.zeros(1, 4, N_CLASSES)
    logits[0, 0, 0] = logits[0, 1, 0] = 50.0  # sure: 1, 1, ¼, ¼
    valid = torch.ones(1, 4, dtype=torch.bool)

    seen = network._surety(logits, valid)[0]

    mean, variance = 0.7 / N_CLASSES + 0.3 * 0.625, 0.7 + 0.3 * (4 * 0.375**2 / 3)
    low = math.exp(-2 * (0.25 - mean) ** 2 / variance)
    assert [1, 1, low, low] == pytest.approx(seen.tolist(), rel=8 * SHARE)
    with torch.no_grad():
        batch = BagBatch(
            torch.zeros(1, 4, 2 * HALF),
            valid,
            torch.zeros(1, 4, dtype=torch.int64),
            torch.ones(1, N_CLASSES),
        )
        scores = network(batch.features, valid)
        scores.parts["logits"] = logits
        network.after_step(scores, batch, 0)
    kept = [network.sure_mean.item(), network.sure_variance.item()]
    assert [mean, variance] == pytest.approx(kept, rel=8 * SHARE)


def test_the_mix_is_the_sum_with_the_sequence_before():
    network, batch = a_network(dropout=0.0).train(), a_batch()

    with torch.no_grad():
        mixed = network(batch.features, batch.valid).parts["mixed"]
        summed = batch.features + batch.features[[1, 0]]
        alone = network(summed, batch.valid).parts["each"]

    assert torch.equal(alone, mixed)
    assert "mixed" not in network.eval()(batch.features, batch.valid).parts


def gradients(network, batch, term):
    network.zero_grad(set_to_none=True)
    scores = network(batch.features, batch.valid)
    network.losses(scores, batch, 0)[term].backward()
    parts = {
        "encoder": network.encoder,
        "modalities": network.modality_encoders,
        "actionness": network.modality_actionness,
        "spread": network.spread,
        "semantics": network.semantics,
        "classifier": network.classifier,
    }
    return {
        name
        for name, part in parts.items()
        if any(one.grad is not None and one.grad.abs().max() > 0 for one in part.parameters())
    }


@pytest.mark.parametrize(
    ("term", "wanted"),
    [
        # The fused scores choose snippets, and labels and their weights take no gradient.
        ("bag", {"encoder", "spread", "classifier", "actionness", "modalities"}),
        ("background", {"encoder", "spread", "classifier", "actionness", "modalities"}),
        ("semantic", {"encoder", "modalities", "semantics"}),
        ("mutual", {"modalities", "actionness"}),
        ("actionness", {"modalities", "actionness"}),
        ("mixed", {"modalities", "actionness"}),
    ],
)
def test_gradients_flow_where_the_method_says(term, wanted):
    assert wanted == gradients(a_network().train(), a_batch(), term)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rank": 9}, "rank is 9, wanted 0"),
        ({"causal": True, "rank": 0}, "causal needs a rank"),
        ({"causal": True, "rank": 2}, "causal needs fusion product"),
        ({"modalities": 1}, "mutual needs two modalities"),
        ({"kernel": 2}, "kernel is 2"),
        ({"half_life": 0}, "half_life is 0"),
    ],
)
def test_parts_that_do_not_go_together_are_refused_in_words(changes, said):
    with pytest.raises(BundleError, match=said):
        small_network_config("sal", **changes)


def test_features_that_cannot_be_parted_are_refused():
    with pytest.raises(DataError, match="cannot be parted"):
        small_network("sal", feature_dim=7, n_classes=2)
