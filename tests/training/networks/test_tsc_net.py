"""TSC-Net against its published code: sizes, equal answers, its terms, and where gradients go."""

import math
from functools import partial

import numpy as np
import pytest

from engine.errors import BundleError, DataError
from tests.support.error_bounds import HALF_ULP, gamma
from tests.support.real_parts import torch_imports
from tests.support.small_networks import shipped_network, small_network, small_network_config

with torch_imports():
    import torch
    from torch.nn import functional as F  # noqa: N812 - torch's own convention

    from training.networks import losses
    from training.networks.attention import attended, visible
    from training.networks.base import BagBatch
    from training.networks.semantics_bank import fit_bank, write_bank
    from training.networks.tsc_net import SilentNorm

pytestmark = [pytest.mark.torch, pytest.mark.numeric]

WIDTH, N_CLASSES, LENGTH = 8, 3, 17
# Sums have at most 64 terms, and some 40 of them lead to an answer, whose parts are below 1000.
BOUND = 1000 * gamma(64 * 64, HALF_ULP["float64"])


def a_network(**changes):
    network = small_network(
        "tsc-net", feature_dim=WIDTH, n_classes=N_CLASSES, **{"width": 0, **changes}
    )
    for weight in network.parameters():  # nothing that starts at zero may hide in a comparison
        torch.nn.init.normal_(weight, std=0.3)
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            buffer.normal_()
    return network


def a_batch(n_videos=2, length=LENGTH):
    rng = torch.Generator().manual_seed(1)
    features = torch.randn(n_videos, length, WIDTH, generator=rng).abs().double()
    bags = torch.arange(n_videos).unsqueeze(1).expand(-1, length)
    tags = torch.zeros(n_videos, N_CLASSES).double()
    tags[:, 1] = 1
    return BagBatch(features, bags >= 0, bags, tags)


def test_the_published_form_has_the_published_size():
    network = shipped_network("tsc-net-thumos14", feature_dim=2048, n_classes=20)

    assert 138_060_844 == sum(one.numel() for one in network.parameters())  # 138.06 M
    assert (21, 2048) == tuple(network.reader.bank.shape)


def test_the_form_for_scenes_is_small():
    network = shipped_network("tsc-net-scenes", feature_dim=1024, n_classes=6)

    assert sum(one.numel() for one in network.parameters()) < 3_000_000


class Published:
    """The published forward pass at test time, channels first; ``w`` holds our weights."""

    def __init__(self, network, features):
        self.w = network.state_dict()
        x = features.transpose(1, 2)  # (B, D, T)
        u1 = self.conv("pyramid.levels.0", x)
        x1 = x + u1
        u3 = self.conv("pyramid.levels.1", x1)
        x2 = x1 + u3
        u5 = self.conv("pyramid.levels.2", x2)
        fused = self.conv("pyramid.fusion", torch.cat([u1, u3, u5], dim=1))
        self.m = F.leaky_relu(fused, 0.2)
        self.time = self.correlated(self.m)
        self.bank = self.read(x2)
        s_t, a_t = self.head("time", self.time)
        s_c, a_c = self.head("bank", self.bank)
        self.s, self.a = 0.55 * s_t + 0.45 * s_c, 0.55 * a_t + 0.45 * a_c

    def conv(self, name, x):
        weight = self.w[f"{name}.inner.weight"]
        return F.conv1d(x, weight, self.w[f"{name}.inner.bias"], padding=weight.shape[2] // 2)

    def linear(self, name, x):
        bias = self.w.get(f"{name}.bias")
        return F.conv1d(x, self.w[f"{name}.weight"].unsqueeze(2), bias)

    def norm(self, name, x):
        parts = (self.w[f"{name}.inner.{part}"] for part in ("running_mean", "running_var"))
        mean, var = (one[None, :, None] for one in parts)
        gain, bias = (self.w[f"{name}.inner.{part}"][None, :, None] for part in ("weight", "bias"))
        return gain * (x - mean) / (var + 1e-5).sqrt() + bias

    def correlated(self, m, heads=2):
        name = partial("correlation.{}".format)
        q, k, v = (self.linear(name(part), m) for part in ("query", "key", "value"))
        parts = []
        for one in range(heads):
            at = slice(one * WIDTH // heads, (one + 1) * WIDTH // heads)
            logits = q[:, at].transpose(1, 2) @ k[:, at] / math.sqrt(WIDTH // heads)
            parts.append(v[:, at] @ logits.softmax(dim=2).transpose(1, 2))
        return m + self.norm(name("norm"), self.linear(name("out"), torch.cat(parts, dim=1)))

    def read(self, x2, heads=2, d_k=3):
        rows = self.w["reader.bank"]
        q = self.linear("reader.query", x2)
        k, v = (rows @ self.w[f"reader.{part}.weight"].T for part in ("key", "value"))
        parts = []
        for one in range(heads):
            at = slice(one * d_k, (one + 1) * d_k)
            logits = q[:, at].transpose(1, 2) @ k[:, at].T * heads**-0.5 * d_k**-0.5
            parts.append((logits.softmax(dim=2) @ v[:, at]).transpose(1, 2))
        out = self.linear("reader.out", torch.cat(parts, dim=1))
        attention = self.norm("reader.norms.0", out) + x2
        src = x2 + self.norm("reader.norms.1", attention)
        hidden = self.linear("reader.first", src).relu()
        return src + self.norm("reader.norms.2", self.linear("reader.second", hidden))

    def head(self, branch, x):
        name = partial("heads.{}.{}".format, branch)
        hidden = F.leaky_relu(self.conv(name("hidden"), x), 0.2)
        s = F.leaky_relu(self.linear(name("logits"), hidden), 0.2).transpose(1, 2)
        inner = F.leaky_relu(self.conv(name("first"), x), 0.2)
        inner = F.leaky_relu(self.conv(name("second"), inner), 0.2)
        return s, self.linear(name("actionness"), inner).sigmoid().squeeze(1)


def test_equal_weights_give_the_published_answers():
    network, batch = a_network().double().eval(), a_batch()

    with torch.no_grad():
        scores = network(batch.features, batch.valid)
        wanted = Published(network, batch.features)

    pairs = [
        (scores.parts["fused"], wanted.m.transpose(1, 2)),
        (scores.parts["time_features"], wanted.time.transpose(1, 2)),
        (scores.parts["bank_features"], wanted.bank.transpose(1, 2)),
        (scores.attention, wanted.a),
        (scores.cas, wanted.s.softmax(dim=2)[..., :N_CLASSES]),
    ]
    for seen, other in pairs:
        np.testing.assert_allclose(seen.numpy(), other.numpy(), rtol=0, atol=BOUND)


def test_the_terms_are_those_of_both_branches_and_the_reconstruction():
    network, batch = a_network().double().eval(), a_batch()

    with torch.no_grad():
        scores = network(batch.features, batch.valid)
        seen = network.losses(scores, batch, step=0)

    p, valid = scores.parts, batch.valid
    wanted = dict.fromkeys(("bag", "suppressed_bag", "guide", "co_activity"), 0.0)
    for branch in ("time", "bank"):
        s, a, x = (p[f"{branch}_{what}"] for what in ("logits", "actionness", "features"))
        held = losses.suppressed(s, a)
        top, top_held = (one.sort(dim=1).values[:, -(LENGTH // 7) :].mean(1) for one in (s, held))
        wanted["bag"] += losses.multiple_instance_loss(top, batch.tags, background=1)
        wanted["suppressed_bag"] += losses.multiple_instance_loss(
            top_held, batch.tags, background=0
        )
        wanted["guide"] += 0.5 * (1 - a - s.softmax(dim=2)[..., -1]).abs().mean()
        wanted["co_activity"] += losses.co_activity_loss(x, held, batch.tags, valid)
    wanted["reconstruction"] = ((p["bank_features"] - p["fused"]) ** 2).mean()
    assert set(wanted) == set(seen)
    for name, value in wanted.items():
        assert value.item() == pytest.approx(seen[name].item(), rel=0, abs=BOUND), name


PARTS = ("pyramid", "correlation", "reader", "heads.time", "heads.bank")


def reached(network, batch, term):
    network.zero_grad(set_to_none=True)
    scores = network(batch.features, batch.valid)
    terms = {
        "time": scores.parts["time_logits"].sum(),
        "bank": scores.parts["bank_logits"].sum(),
        "reconstruction": network.losses(scores, batch, 0)["reconstruction"],
    }
    terms[term].backward()
    named = network.named_parameters()
    hit = {name for name, one in named if one.grad is not None and one.grad.abs().max() > 0}
    return {part for part in PARTS if any(name.startswith(part) for name in hit)}


@pytest.mark.parametrize(
    ("term", "wanted"),
    [
        ("time", {"pyramid", "correlation", "heads.time"}),
        ("bank", {"pyramid", "reader", "heads.bank"}),
        ("reconstruction", {"pyramid", "reader"}),  # on both of its sides
    ],
)
def test_gradients_flow_where_the_method_says(term, wanted):
    assert wanted == reached(a_network().double().train(), a_batch(), term)


def test_the_bank_reads_what_the_last_level_sees_and_not_the_fusion():
    network, batch = a_network().double().eval(), a_batch()
    before = network(batch.features, batch.valid).parts
    with torch.no_grad():
        network.pyramid.fusion.inner.bias.add_(1)
    after = network(batch.features, batch.valid).parts

    assert torch.equal(before["bank_logits"], after["bank_logits"])
    assert not torch.equal(before["time_logits"], after["time_logits"])


def test_both_attentions_are_silent_before_anything_is_learned():
    network = small_network("tsc-net", feature_dim=WIDTH, n_classes=N_CLASSES, width=0)
    batch = a_batch()

    parts = network.double().eval()(batch.features, batch.valid).parts
    queries, fused = network.pyramid(batch.features, batch.valid.unsqueeze(-1).double())

    assert torch.equal(fused, parts["time_features"])
    assert torch.equal(queries, parts["bank_features"])


def test_normalisation_sees_no_padding():
    norm, mask = SilentNorm(2).train(), torch.tensor([[[1.0], [1], [0]]])
    torch.nn.init.ones_(norm.inner.weight)

    seen = norm(torch.tensor([[[1.0, 0], [3, 4], [99, 99]]]), mask)

    # Means 2 and 2, deviations 1 and 2; half of 1e-5 of a variance of 1 is lost to its epsilon.
    assert [[-1, -1], [1, 1], [0, 0]] == pytest.approx(np.round(seen[0].detach().numpy(), 4))


def test_a_query_that_may_look_nowhere_reads_nothing():
    q, allowed = torch.randn(1, 3, 4), visible(torch.zeros(1, 3, 1), causal=True)

    assert 0 == attended(q, q, q, 2, allowed=allowed).abs().max()


def test_the_bank_starts_at_what_the_features_look_like(tmp_path):
    rows = torch.randn(50, WIDTH)
    tags = torch.zeros(50, N_CLASSES)
    own = small_network("tsc-net", feature_dim=WIDTH, n_classes=N_CLASSES)
    own.fit_input(rows, tags, len(rows))
    assert torch.equal(fit_bank(rows, N_CLASSES + 1), own.reader.bank)

    write_bank(np.full((2, WIDTH), 0.5, np.float32), tmp_path / "bank.npy")
    given = small_network(
        "tsc-net",
        feature_dim=WIDTH,
        n_classes=N_CLASSES,
        bank=str(tmp_path / "bank.npy"),
        bank_rows=2,
    )
    given.fit_input(rows, tags, len(rows))
    assert torch.equal(torch.full((2, WIDTH), 0.5), given.reader.bank)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 7}, "heads is 2: width must be a multiple"),
        ({"width": -2}, "width and bank_rows are 0 or more"),
        ({"time_share": 1.5}, "time_share is 1.5"),
        ({"bank_heads": 0}, "bank_heads is 0"),
    ],
)
def test_parts_that_do_not_go_together_are_refused_in_words(changes, said):
    with pytest.raises(BundleError, match=said):
        small_network_config("tsc-net", **changes)


def test_features_that_no_head_can_part_are_refused():
    with pytest.raises(DataError, match="heads is 2, but the features have 7"):
        small_network("tsc-net", feature_dim=7, n_classes=2, width=0)
