"""The loss of clicks against numbers worked by hand, and under every network."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.error_bounds import gamma
from tests.support.real_parts import torch_imports

with torch_imports():
    import torch

    from training.networks.point_loss import lowest_between, point_loss

pytestmark = [pytest.mark.torch, pytest.mark.numeric]

SHARE = gamma(32)  # as in test_losses


def one_bag(length):
    return torch.zeros(1, length, dtype=torch.int64)


def test_clicks_want_a_one_and_gaps_a_zero_at_their_lowest():
    cas = torch.tensor([[[0.5], [0.9], [0.25], [0.6], [0.8]]], requires_grad=True)
    points = torch.tensor([[[True], [False], [False], [False], [True]]])

    loss = point_loss(cas, points, one_bag(5), focus=2)
    loss.backward()

    clicks = (0.25 * -math.log(0.5) + 0.04 * -math.log(0.8)) / 2
    gap = 0.0625 * -math.log(0.75)
    # (1 - q) of q = .8 loses two digits, squared.
    assert float(loss.detach()) == pytest.approx(clicks + gap, rel=8 * SHARE)
    slopes = cas.grad[0, :, 0]
    assert slopes[0] < 0
    assert slopes[4] < 0
    assert slopes[2] > 0
    assert [0, 0] == slopes[[1, 3]].tolist()


def test_without_clicks_nothing_is_wanted():
    cas = torch.rand(1, 4, 2, requires_grad=True)
    loss = point_loss(cas, torch.zeros(1, 4, 2, dtype=torch.bool), one_bag(4), focus=2)
    loss.backward()

    assert 0 == float(loss.detach())
    assert not cas.grad.any()


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_it_is_finite_where_scores_are_sure(score):
    cas = torch.full((1, 3, 1), score, requires_grad=True)
    points = torch.tensor([[[True], [False], [True]]])
    loss = point_loss(cas, points, one_bag(3), focus=2)
    loss.backward()

    assert torch.isfinite(loss)
    assert torch.isfinite(cas.grad).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.4, 0.8]))
def test_gaps_lie_between_clicks_of_one_class_in_one_bag(seed, share):
    random = torch.Generator().manual_seed(seed)
    cas = torch.rand(3, 9, 2, generator=random)
    bags = torch.tensor([[0] * 4 + [1] * 3 + [-1] * 2, [2] * 9, [3] * 2 + [-1] * 2 + [3] * 5])
    points = (torch.rand(3, 9, 2, generator=random) < share) & (bags >= 0).unsqueeze(-1)

    wanted = []
    for row, class_index in itertools.product(range(3), range(2)):
        clicks = torch.nonzero(points[row, :, class_index]).flatten().tolist()
        for first, last in itertools.pairwise(clicks):
            inside = [at for at in range(first + 1, last) if bags[row, at] >= 0]
            if bags[row, first] == bags[row, last] and inside:
                wanted.append(float(cas[row, inside, class_index].min()))

    assert sorted(wanted) == sorted(lowest_between(cas, points, bags).tolist())
