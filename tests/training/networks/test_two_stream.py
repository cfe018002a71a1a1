"""Two-Stream against its paper: sizes, equal answers, losses by hand, and where gradients go.

Numbers worked by hand have at most 64 roundings behind them, of which a logarithm or an
exponential counts for eight (``error_bounds``); terms have one sign.
"""

import math

import numpy as np
import pytest

from tests.support.error_bounds import HALF_ULP, gamma
from tests.support.real_parts import torch_imports
from tests.support.small_networks import shipped_network, small_network

with torch_imports():
    import torch

    from training.networks import losses
    from training.networks.base import BagBatch

pytestmark = [pytest.mark.torch, pytest.mark.numeric]

SHARE = 2 * gamma(64)
WIDTH, N_CLASSES = 6, 3


def a_network(**changes):
    network = small_network("two-stream", feature_dim=WIDTH, n_classes=N_CLASSES, **changes)
    for weight in network.parameters():  # nothing that starts at zero may hide in a comparison
        torch.nn.init.normal_(weight, std=0.5)
    return network


def a_video(tags=(1.0, 0, 1), length=17):
    features = torch.randn(1, length, WIDTH, generator=torch.Generator().manual_seed(1)).abs()
    bags = torch.zeros(1, length, dtype=torch.int64)
    return BagBatch(features, bags >= 0, bags, torch.tensor([tags]))


@pytest.mark.parametrize(
    ("name", "feature_dim", "n_classes"),
    [("thumos14", 2048, 20), ("thumos14-rgb", 1024, 20), ("activitynet", 2048, 200)],
)
def test_a_network_has_the_size_that_the_equations_say(name, feature_dim, n_classes):
    network = shipped_network(f"two-stream-{name}", feature_dim=feature_dim, n_classes=n_classes)

    embedding = 2 * (3 * feature_dim * feature_dim + feature_dim)
    attention = 3 * feature_dim + 3
    classifiers = 2 * (n_classes + 1) * (feature_dim + 1)
    dictionary = (n_classes + 1) * feature_dim
    seen = sum(one.numel() for one in network.parameters())
    assert embedding + attention + classifiers + dictionary == seen
    if name == "thumos14":
        assert 25_305_133 == seen


class Paper:
    """The equations of the paper in numpy, one video of X (T, D), background class first."""

    def __init__(self, network):
        w = {name: tensor.numpy() for name, tensor in network.double().state_dict().items()}
        first = np.r_[N_CLASSES, 0:N_CLASSES]  # our last class is the paper's class 0
        self.inner = w["inner.inner.weight"], w["inner.inner.bias"]
        self.outer = w["outer.inner.weight"], w["outer.inner.bias"]
        self.attention = w["attention.weight"], w["attention.bias"]
        self.mil = w["classifier.weight"][first], w["classifier.bias"][first]
        self.shared = w["pooled_classifier.weight"][first], w["pooled_classifier.bias"][first]
        self.rows = w["dictionary"][first]

    @staticmethod
    def convolved(values, weight, bias):
        padded = np.pad(values, ((1, 1), (0, 0)))
        shape = range(len(values))
        return np.array([np.einsum("kd,odk->o", padded[t : t + 3], weight) + bias for t in shape])

    def answer(self, features):
        hidden = np.maximum(self.convolved(features, *self.inner), 0)
        x = features + self.convolved(hidden, *self.outer)
        attention = softmax(x @ self.attention[0].T + self.attention[1])  # fg, ct, bg
        p = x @ self.mil[0].T + self.mil[1]
        fused = []
        for i, sigma in enumerate((8, 2, 2)):
            a = attention[:, i]
            pooled = softmax((a @ x / a.sum()) @ self.shared[0].T + self.shared[1])
            z = np.sort(a[:, None] * p, axis=0)[::-1]
            k = max(len(x) // sigma, 1)
            fused.append((pooled + softmax(z[:k].mean(axis=0))) / 2)
        return x, attention, p, np.array(fused)


def softmax(values):
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def test_equal_weights_give_the_answers_and_the_loss_of_the_paper():
    network, batch = a_network().eval(), a_video()
    paper = Paper(network)
    features = batch.features.double()
    batch = BagBatch(features, batch.valid, batch.bags, batch.tags.double())

    with torch.no_grad():
        scores = network(features, batch.valid)
        terms = network.losses(scores, batch, step=5)

    x, a, p, fused = paper.answer(features[0].numpy())
    # Sums have at most 18 terms; five of them lead to an answer, whose parts are below 100.
    bound = 100 * gamma(64 * 64, HALF_ULP["float64"])
    z = softmax(a[:, :1] * p)
    np.testing.assert_allclose(scores.cas[0].numpy(), z[:, 1:], rtol=0, atol=bound)
    np.testing.assert_allclose(scores.video_scores[0].numpy(), fused[0, 1:], rtol=0, atol=bound)
    assert torch.equal(scores.attention, torch.ones(1, 17, dtype=torch.float64))

    log = np.log(fused)
    tagged = np.array([1, 3])  # tags 0 and 2, after the background
    allowed = np.array([0, 1, 3])
    nearest = paper.rows[allowed[p[:, allowed].argmax(axis=1)]]
    wanted = {
        "action": -log[0, tagged].mean(),
        "context": -0.1 * log[1, allowed].mean(),
        "background": -0.1 * log[2, 0],
        "semantic": 0.05 * np.linalg.norm(x - nearest, axis=1).mean(),
        "guide": 0.002 * np.abs(1 - a[:, 0] - z[:, 0]).mean(),
    }
    assert set(wanted) == set(terms)
    for name, value in wanted.items():
        assert value == pytest.approx(terms[name].item(), rel=0, abs=bound), name


def test_a_gated_answer_is_near_nothing_where_nothing_is_attended_to():
    plain, gated, batch = a_network().eval(), a_network(gated=True).eval(), a_video()
    gated.load_state_dict(plain.state_dict())

    seen, wanted = (one(batch.features, batch.valid) for one in (gated, plain))

    assert torch.equal(wanted.cas, seen.cas)
    assert torch.equal(wanted.parts["attentions"][..., 0], seen.attention)


def test_the_shared_target_is_held_against_probabilities():
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.375, 0.5]])
    tags = torch.tensor([[1.0, 1], [0, 0]])

    with_rest = losses.shared_cross_entropy(probabilities, tags, background=1).item()
    without = losses.shared_cross_entropy(probabilities, tags, background=0).item()

    # Bag 0 shares among three or two; bag 1 has background alone, or nothing.
    first = (math.log(2) + 2 * math.log(4)) / 3
    assert (first + math.log(2)) / 2 == pytest.approx(with_rest, rel=SHARE)
    assert (math.log(2) + math.log(4)) / 4 == pytest.approx(without, rel=SHARE)


def test_a_loss_of_no_probability_is_finite():
    seen = losses.shared_cross_entropy(torch.tensor([[0.0, 1]]), torch.ones(1, 1), background=0)

    assert math.isfinite(seen.item())


def test_the_dictionary_starts_at_the_means_of_its_classes():
    network = a_network()
    rows = torch.arange(4.0).unsqueeze(1).expand(4, WIDTH)
    tags = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]])

    network.fit_input(rows, tags, len(rows))

    # Class 2 has no video, and like the background takes the mean of all: 1.5.
    assert [0.5, 1.5, 1.5, 1.5] == network.dictionary[:, 0].tolist()
    assert torch.equal(network.dictionary[:, :1].expand(4, WIDTH), network.dictionary)


def test_the_dictionary_rests_during_the_warm_up():
    network, batch = a_network(warm_up_steps=3), a_video()
    for step in (2, 3):
        network.zero_grad(set_to_none=True)
        terms = network.losses(network(batch.features, batch.valid), batch, step)
        torch.stack(list(terms.values())).sum().backward()

        assert (step == 3) == ("semantic" in terms)
        assert (step == 3) == (network.dictionary.grad is not None)


@pytest.mark.parametrize("only_tagged", [True, False])
def test_the_dictionary_pulls_at_snippets_and_at_chosen_rows_alone(only_tagged):
    network, batch = a_network(only_tagged=only_tagged).eval(), a_video(tags=(0.0, 1, 0))
    with torch.no_grad():  # every snippet looks most like class 0, and then like class 1
        network.classifier.weight.zero_()
        network.classifier.bias.copy_(torch.tensor([9.0, 5, 1, 1]))

    terms = network.losses(network(batch.features, batch.valid), batch, step=5)
    terms["semantic"].backward()

    pulled = network.dictionary.grad.abs().sum(dim=1) > 0
    assert [not only_tagged, only_tagged, False, False] == pulled.tolist()
    assert network.outer.inner.weight.grad.abs().max() > 0
    for untouched in (network.classifier, network.attention, network.pooled_classifier):
        assert untouched.weight.grad is None


def test_the_embedding_starts_as_the_features():
    network, batch = small_network("two-stream", feature_dim=WIDTH, n_classes=3), a_video()

    assert torch.equal(batch.features, network(batch.features, batch.valid).parts["embedding"])


def test_a_weight_of_nothing_leaves_its_term_out():
    network, batch = a_network(semantic=0.0, guide=0.0, context=0.0), a_video()

    terms = network.losses(network(batch.features, batch.valid), batch, step=5)

    assert {"action", "background"} == set(terms)
