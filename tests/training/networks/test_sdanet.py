"""SDANet against the equations that stand for its abstract, and what its losses pull at.

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
    from torch.nn import functional as F  # noqa: N812 - torch's own convention

    from training.networks import snippet_losses
    from training.networks.base import BagBatch
    from training.networks.potential_features import Mined, mined, potential_loss
    from training.networks.sdanet import DifferenceAttention

pytestmark = [pytest.mark.torch, pytest.mark.numeric]

SHARE = 2 * gamma(64)
HALF, N_CLASSES, LENGTH = 5, 3, 24
# Sums have at most 64 terms, and some 40 of them lead to an answer, whose parts are below 1000.
BOUND = 1000 * gamma(64 * 64, HALF_ULP["float64"])


def a_network(**changes):
    network = small_network("sdanet", feature_dim=2 * HALF, n_classes=N_CLASSES, **changes)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    return network.double()


def a_batch(n_videos=2, length=LENGTH, *, is_tagged=True):
    rng = torch.Generator().manual_seed(1)
    features = torch.randn(n_videos, length, 2 * HALF, generator=rng).abs().double()
    bags = torch.arange(n_videos).unsqueeze(1).expand(-1, length)
    tags = torch.zeros(n_videos, N_CLASSES).double()
    tags[:, 1] = float(is_tagged)
    return BagBatch(features, bags >= 0, bags, tags)


@pytest.mark.parametrize(
    ("name", "feature_dim", "modalities", "fused"),
    [("thumos14", 2048, 2, 1024), ("thumos14-rgb", 1024, 1, 512)],
)
def test_a_network_has_the_size_that_the_equations_say(name, feature_dim, modalities, fused):
    network = shipped_network(f"sdanet-{name}", feature_dim=feature_dim, n_classes=20)

    given, width = 1024, 512
    scales = (1 + 3 + 5) * given * width + 3 * width + 3 * width**2 + width + (given + 1) * width
    attention = (width**2 + width) + (width + 1) + 2 * width**2 + 2 * (width**2 + width)
    layer = 2 * (2 * width**2) + 2 * width + width + 4 * width
    actionness = 2 * (3 * width**2 + width) + width + 1
    decoder = (width + 1) * given
    compared = width**2 if modalities > 1 else 0
    fusion = (modalities * width + 1) * fused
    classifier = 3 * fused**2 + fused + 21 * (fused + 1)
    wanted = modalities * (scales + attention + layer + actionness + decoder)
    wanted += compared + fusion + classifier
    assert wanted == sum(one.numel() for one in network.parameters())
    if name == "thumos14":
        assert 25_473_049 == wanted


class Stated:
    """The equations once more, channels first; ``w`` holds our weights."""

    def __init__(self, network, features):
        self.w = network.state_dict()
        given = features.transpose(1, 2).split(HALF, dim=1)
        self.f = [self.encoded(f"encoders.{i}", x) for i, x in enumerate(given)]
        self.a = [self.actionness(f"encoders.{i}", f) for i, f in enumerate(self.f)]
        self.apart = [
            ((self.linear(f"encoders.{i}.decoder", f) - x) ** 2).mean()
            for i, (f, x) in enumerate(zip(self.f, given, strict=True))
        ]
        z = F.leaky_relu(self.linear("fusion", torch.cat(self.f, dim=1)), 0.2)
        hidden = F.leaky_relu(self.conv("classifier.hidden", z), 0.2)
        self.z, self.s = z, self.linear("classifier.logits", hidden)

    def conv(self, name, x):
        weight = self.w[f"{name}.inner.weight"]
        return F.conv1d(x, weight, self.w[f"{name}.inner.bias"], padding=weight.shape[2] // 2)

    def linear(self, name, x):
        weight = self.w[f"{name}.weight"].unsqueeze(2)
        return F.conv1d(x, weight, self.w.get(f"{name}.bias"))

    def norm(self, name, x):
        mean, var = x.mean(dim=1, keepdim=True), x.var(dim=1, keepdim=True, unbiased=False)
        scaled = (x - mean) / (var + 1e-5).sqrt()
        return self.w[f"{name}.weight"][:, None] * scaled + self.w[f"{name}.bias"][:, None]

    def encoded(self, name, x, heads=2):
        scales = [F.leaky_relu(self.conv(f"{name}.scales.scales.{i}", x), 0.2) for i in range(3)]
        m = self.linear(f"{name}.scales.fusion", torch.cat(scales, dim=1))
        m = m + self.linear(f"{name}.scales.residual", x)
        edged = F.pad(m, (1, 1), mode="replicate")
        steps = (edged[..., 1:] - edged[..., :-1]).abs()
        part = f"{name}.differences.{{}}".format
        d = self.linear(part("difference"), (steps[..., :-1] + steps[..., 1:]) / 2)
        w = self.linear(part("saliency"), d).sigmoid()
        q, k = self.linear(part("query"), d), self.linear(part("key"), d)
        v, each, read = self.linear(part("value"), m), m.shape[1] // heads, []
        for head in range(heads):
            at = slice(head * each, (head + 1) * each)
            logits = q[:, at].transpose(1, 2) @ k[:, at] / math.sqrt(each) + (w + 1e-6).log()
            read.append(v[:, at] @ logits.softmax(dim=2).transpose(1, 2))
        f = self.norm(part("norms.0"), m + self.linear(part("out"), torch.cat(read, dim=1)))
        layer = self.linear(part("outer"), self.linear(part("inner"), f).relu())
        return self.norm(part("norms.1"), f + layer)

    def actionness(self, name, f):
        hidden = F.leaky_relu(self.conv(f"{name}.actionness.first", f), 0.2)
        hidden = F.leaky_relu(self.conv(f"{name}.actionness.second", hidden), 0.2)
        return self.linear(f"{name}.actionness.unit", hidden).sigmoid().squeeze(1)


def test_equal_weights_give_what_the_equations_say():
    network, batch = a_network(heads=2).eval(), a_batch()

    with torch.no_grad():
        scores = network(batch.features, batch.valid)
        terms = network.losses(scores, batch, step=0)
        wanted = Stated(network, batch.features)
        r, f = (F.conv1d(x, network.compared.weight.unsqueeze(2)) for x in wanted.f)

    s, a = wanted.s.transpose(1, 2), (wanted.a[0] + wanted.a[1]) / 2
    curves = (a, *wanted.a)
    background = s.softmax(dim=2)[..., -1]
    angle = 1 - F.cosine_similarity(r, f, dim=1).mean()
    pairs = {
        "cas": (scores.cas, s.softmax(dim=2)[..., :N_CLASSES]),
        "attention": (scores.attention, a),
        "sparsity": (terms["sparsity"], 0.8 * sum(one.mean() for one in curves) / 3),
        "guide": (
            terms["guide"],
            0.8 * sum((1 - one - background).abs().mean() for one in curves) / 3,
        ),
        "reconstruction": (terms["reconstruction"], sum(wanted.apart) / 2),
        "similarity": (
            terms["similarity"],
            0.5 * (angle + ((wanted.a[0] - wanted.a[1]) ** 2).mean()),
        ),
    }
    for name, (seen, other) in pairs.items():
        np.testing.assert_allclose(seen.numpy(), other.numpy(), rtol=0, atol=BOUND, err_msg=name)


def test_every_loss_of_the_method_is_there():
    network, batch = a_network(), a_batch()
    seen = network.losses(network(batch.features, batch.valid), batch, step=0)

    wanted = "bag suppressed_bag sparsity guide co_activity potential similarity reconstruction"
    assert set(wanted.split()) == set(seen)


@pytest.mark.parametrize(
    ("causal", "wanted"), [(False, [1, 1.5, 0.5, 0, 0]), (True, [0, 2, 1, 0, 0])]
)
def test_a_difference_is_to_the_neighbours_that_are_there(causal, wanted):
    fused = torch.tensor([[[1.0], [3], [2], [9], [7]]])
    mask = torch.tensor([[[1.0], [1], [1], [0], [1]]])

    seen = DifferenceAttention(1, 1, causal=causal)._differences(fused * mask, mask)

    assert wanted == seen.flatten().tolist()


def test_snippets_are_sorted_by_how_clear_they_are():
    """16 snippets: 2 clear ones a kind, the 8 around the median, one a kind of potential ones."""
    actionness = torch.arange(16.0).unsqueeze(0) / 16
    embedding = torch.zeros(1, 16, 2)
    embedding[0, 14:] = torch.tensor([1.0, 0])  # action lies along x
    embedding[0, :2] = torch.tensor([0.0, 1])  # and background along y
    embedding[0, 2:14] = torch.tensor([1.0, 1])
    embedding[0, 6] = torch.tensor([3.0, 1])  # the most like action of those in between
    embedding[0, 9] = torch.tensor([1.0, 3])
    embedding[0, 12] = torch.tensor([9.0, 1])  # not in between, but the modalities disagree
    each = torch.stack([actionness, actionness], dim=2)
    valid = torch.ones(1, 16, dtype=torch.bool)

    def places(sets):
        parts = (sets.action, sets.background, sets.potential_action, sets.potential_background)
        return [torch.nonzero(part[0]).flatten().tolist() for part in parts]

    assert [[14, 15], [0, 1], [6], [9]] == places(mined(embedding, actionness, each, valid))
    each[0, 12] = torch.tensor([0.4, 0.9])
    assert [[14, 15], [0, 1], [12], [9]] == places(mined(embedding, actionness, each, valid))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_short_bags_are_sorted_as_far_as_they_go(length):
    actionness, valid = torch.rand(1, 4), torch.arange(4).unsqueeze(0) < length

    sets = mined(torch.randn(1, 4, 2), actionness, actionness.unsqueeze(2), valid)

    parts = torch.stack(
        [sets.action, sets.background, sets.potential_action, sets.potential_background]
    )
    assert parts.sum(dim=0).max() <= 1
    assert not parts[:, ~valid].any()
    assert length == parts.sum()


def test_the_contrast_is_the_share_of_the_own_key():
    q, k = torch.tensor([[2.0, 0]]), torch.tensor([[3.0, 0]])
    negatives = torch.tensor([[[0.0, 5], [-1, 0], [7, 7]]])
    counts = torch.tensor([[True, True, False]])

    seen = snippet_losses.snippet_contrast(q, k, negatives, counts, temperature=1.0)

    # Cosines 1 to the key, 0 and -1 to the two that count.
    assert -math.log(math.e / (math.e + 1 + 1 / math.e)) == pytest.approx(seen.item(), rel=SHARE)


def four_snippets():
    one = torch.eye(4, dtype=torch.bool).unsqueeze(1)  # action, background, and their potentials
    vectors = torch.tensor([[[1.0, 0], [0, 1], [1, 0], [0, 1]]], requires_grad=True)
    return vectors, Mined(*one)


def test_potential_snippets_are_drawn_to_their_kind():
    vectors, sets = four_snippets()

    seen = potential_loss(vectors, sets, torch.tensor([True]), 1.0)

    # Each has cosine 1 with its kind and 0 with the other's one snippet; two of them.
    assert 2 * math.log(1 + 1 / math.e) == pytest.approx(seen.item(), rel=SHARE)


def test_bags_without_a_tag_or_anything_ambiguous_cost_nothing():
    vectors, sets = four_snippets()
    nothing = torch.zeros(1, 4, dtype=torch.bool)
    clear = Mined(sets.action, sets.background, nothing, nothing)

    untagged = potential_loss(vectors, sets, torch.tensor([False]), 1.0)
    certain = potential_loss(vectors, clear, torch.tensor([True]), 1.0)
    (untagged + certain).backward()

    assert (0, 0) == (untagged.item(), certain.item())
    assert 0 == vectors.grad.abs().max()


def reached(term):
    network, batch = a_network().train(), a_batch()
    network.losses(network(batch.features, batch.valid), batch, 0)[term].backward()
    hit = [
        name
        for name, one in network.named_parameters()
        if one.grad is not None and one.grad.abs().max() > 0
    ]
    parts = ("scales", "differences", "actionness", "decoder", "fusion", "classifier", "compared")
    return {part for part in parts if any(part in name.split(".")[:3] for name in hit)}


TRUNK = {"scales", "differences"}


@pytest.mark.parametrize(
    ("term", "wanted"),
    [
        ("bag", TRUNK | {"fusion", "classifier"}),
        ("suppressed_bag", TRUNK | {"fusion", "classifier", "actionness"}),
        ("sparsity", TRUNK | {"actionness"}),
        ("guide", TRUNK | {"fusion", "classifier", "actionness"}),
        ("potential", TRUNK | {"fusion"}),  # which snippets are meant takes no gradient
        ("similarity", TRUNK | {"compared", "actionness"}),
        ("reconstruction", TRUNK | {"decoder"}),
    ],
)
def test_gradients_flow_where_the_method_says(term, wanted):
    assert wanted == reached(term)


def test_queries_and_keys_see_differences_alone():
    """Footage that does not change attends evenly, whatever it shows."""
    part = DifferenceAttention(4, 2, causal=False).double()
    still = torch.randn(1, 1, 4).double().expand(1, 6, 4)
    mask = torch.ones(1, 6, 1).double()

    seen = part(still, mask)
    with torch.no_grad():
        part.query.weight.normal_()
        part.key.weight.normal_()

    assert 0 == part._differences(still, mask).abs().max()
    np.testing.assert_allclose(
        part(still, mask).detach().numpy(), seen.detach().numpy(), rtol=0, atol=BOUND
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"heads": 3}, "heads is 3: width must be a multiple"),
        ({"modalities": 1}, "similarity needs two modalities"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"pool_ratio": 0}, "pool_ratio is 0"),
    ],
)
def test_parts_that_do_not_go_together_are_refused_in_words(changes, said):
    with pytest.raises(BundleError, match=said):
        small_network_config("sdanet", **changes)


def test_features_that_cannot_be_parted_are_refused():
    with pytest.raises(DataError, match="cannot be parted"):
        small_network("sdanet", feature_dim=7, n_classes=2)
