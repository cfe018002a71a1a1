"""The online head: it sees so far ahead and no further, whole or hop by hop; and its losses."""

import numpy as np
import pytest

from engine.errors import BundleError
from engine.files.strict_yaml import parse, plain
from tests.support.real_parts import torch_imports

with torch_imports():
    import torch

    from training.networks.base import BagBatch
    from training.networks.online import Online, OnlineConfig, online_config

pytestmark = pytest.mark.torch

DIM, N_CLASSES, WINDOW = 5, 3, 24
SMALL = {"whitening_dims": 0, "width": 8, "key_dims": 4}


def a_config(look_ahead, **changes):
    asked = {"look_ahead": look_ahead, "bounded": True}
    section = plain(online_config(0)) | asked | SMALL | changes
    return parse(OnlineConfig, section, "network")


def a_network(look_ahead, **changes):
    torch.manual_seed(0)
    network = Online(a_config(look_ahead, **changes), feature_dim=DIM, n_classes=N_CLASSES)
    with torch.no_grad():  # what starts at zero would hide what it sees
        for weight in network.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return network.eval()


def scored(network, features, valid=None):
    with torch.no_grad():
        return network(features, torch.ones(features.shape[:2]) if valid is None else valid)


def a_batch(n_sequences=3, length=30, clip=10):
    torch.manual_seed(1)
    features = torch.randn(n_sequences, length, DIM)
    bags = torch.arange(n_sequences * length // clip).repeat_interleave(clip).reshape(-1, length)
    targets = torch.rand(n_sequences, length, N_CLASSES)
    tags = torch.randint(0, 2, (int(bags.max()) + 1, N_CLASSES)).float()
    return BagBatch(features, bags >= 0, bags, tags, targets)


@pytest.mark.parametrize("look_ahead", [0, 1, 2, 4, 6])
def test_what_comes_after_the_look_ahead_changes_nothing_and_what_is_in_it_does(look_ahead):
    network, features = a_network(look_ahead), torch.randn(2, 40, DIM)
    t = 20
    later, within = features.clone(), features.clone()
    later[:, t + look_ahead + 1 :] = torch.randn(2, 40 - t - look_ahead - 1, DIM)
    within[:, t + look_ahead] += 1

    before = scored(network, features).cas

    assert torch.equal(before[:, : t + 1], scored(network, later).cas[:, : t + 1])
    assert not torch.equal(before[:, t], scored(network, within).cas[:, t])


def test_without_a_bound_it_sees_as_far_as_kernel_and_windows():
    network, features = a_network(0, bounded=False), torch.randn(1, 40, DIM)
    within, later = features.clone(), features.clone()
    within[:, 26] += 1
    later[:, 27:] += 1

    before = scored(network, features).cas[0, 20]

    assert not torch.equal(before, scored(network, within).cas[0, 20])
    assert torch.equal(before, scored(network, later).cas[0, 20])


@pytest.mark.numeric
@pytest.mark.parametrize("look_ahead", [0, 1, 2])
def test_hop_by_hop_it_gives_what_it_gives_of_the_whole(look_ahead):
    network, features = a_network(look_ahead), torch.randn(1, 50, DIM)
    whole = scored(network, features).cas[0]

    for now in range(50):
        window, valid = torch.zeros(1, WINDOW, DIM), torch.zeros(1, WINDOW)
        n_seen = min(now + 1, WINDOW)
        window[:, -n_seen:], valid[:, -n_seen:] = features[:, now + 1 - n_seen : now + 1], 1
        seen = scored(network, window, valid).cas[0]
        # The newest 8 are read, and those that see all that they may are as in the whole.
        for back in range(look_ahead, min(8, n_seen)):
            np.testing.assert_allclose(seen[-1 - back], whole[now - back], atol=1e-5)


def test_live_windows_are_drawn_by_the_seed_and_see_nothing_after_their_end():
    network, batch = a_network(2, live_windows=20), a_batch()
    network.zero_grad()
    torch.manual_seed(3)
    first = network.losses(scored(network, batch.features), batch, 0)
    torch.manual_seed(3)
    again = network.losses(scored(network, batch.features), batch, 0)

    assert {"bag", "frame", "live", "anticipation"} == set(first)
    assert all(torch.equal(first[name], again[name]) for name in first)
    shown = []
    network.forward = lambda features, valid: (
        shown.append((features, valid)) or scored(a_network(2), features, valid)
    )
    network.losses(scored(a_network(2), batch.features), batch, 0)
    ((features, valid),) = shown
    assert (20, WINDOW, DIM) == features.shape
    assert bool(valid[:, -1].all())
    everything = batch.features.reshape(-1, DIM)
    for window, is_seen in zip(features, valid, strict=True):
        ends = torch.nonzero((everything == window[-1]).all(dim=1)).item()
        n_seen = int(is_seen.sum())
        assert n_seen == min(ends % 30 + 1, WINDOW)
        assert torch.equal(window[is_seen], everything[ends + 1 - n_seen : ends + 1])


def test_what_the_next_hops_of_the_same_clip_show_is_forecast():
    network, batch = a_network(0, anticipated=2, live=0.0), a_batch(1, 8, 4)
    forecast = torch.full((1, 8, 2 * N_CLASSES), 30.0)
    answer = scored(network, batch.features)
    answer.parts["forecast"] = forecast
    batch.targets[:] = 0
    batch.targets[:, 0], batch.targets[:, 4] = 1, 1  # the first of each clip is never a next hop

    all_wrong = network.losses(answer, batch, 0)["anticipation"]
    forecast.neg_()
    all_right = network.losses(answer, batch, 0)["anticipation"]

    assert float(all_right) < 1e-6 < float(all_wrong)


def test_without_a_teacher_it_is_held_to_tags_and_weights_of_zero_leave_losses_out():
    batch = a_batch()
    untaught = BagBatch(batch.features, batch.valid, batch.bags, batch.tags)
    network = a_network(1, live=0.0, anticipation=0.0)
    answer = scored(network, batch.features)

    assert {"bag"} == set(network.losses(answer, untaught, 0))
    assert {"bag", "frame"} == set(network.losses(answer, batch, 0))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"look_ahead": 7}, "look_ahead is 7 hops, wanted 0 to 6"),
        ({"look_ahead": -1}, "look_ahead is -1 hops"),
        ({"kernel": 4}, "wanted odd ones"),
        ({"windows": []}, "wanted odd ones"),
        ({"segments": 1.5}, "segments is 1.5"),
        ({"anticipated": 0}, "are 1 or more"),
    ],
)
def test_a_form_that_is_none_is_refused(changes, told):
    with pytest.raises(BundleError, match=told):
        a_config(**{"look_ahead": 2, **changes})
