"""The loss library against numbers worked by hand.

How far float32 may be off them: no answer here has more than 32 roundings behind it, of which a
logarithm, an exponential, a root or a power counts for eight (``error_bounds``) and every other
operation for one; and terms have one sign, so shares of error do not grow. Differences, which may
lose digits, are of numbers at most 8 times their result, and say so.
"""

import math

import pytest

from tests.support.error_bounds import gamma
from tests.support.real_parts import torch_imports

with torch_imports():
    import torch

    from training.networks import losses
    from training.networks.boundary import boundary_evidence, boundary_loss

pytestmark = [pytest.mark.torch, pytest.mark.numeric]

SHARE = gamma(32)


def tensor(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def all_valid(values):
    return torch.ones(values.shape[:2], dtype=torch.bool)


def test_positions_are_arranged_bag_by_bag_in_order_of_time():
    bags = torch.tensor([[2, 2, 0, -1], [1, 1, 1, -1]])
    layout = losses.BagLayout(bags, n_bags=4)

    seen = layout.arranged(torch.arange(8.0).reshape(2, 4, 1)).squeeze(-1)

    assert [[2, 0, 0], [4, 5, 6], [0, 1, 0], [0, 0, 0]] == seen.tolist()
    wanted = [[True, False, False], [True] * 3, [True, True, False], [False] * 3]
    assert wanted == layout.valid.tolist()


def test_no_position_at_all_is_arranged_too():
    layout = losses.BagLayout(torch.full((1, 3), -1), n_bags=2)

    assert (2, 0, 5) == tuple(layout.arranged(torch.zeros(1, 3, 5)).shape)


@pytest.mark.parametrize(
    ("ratio", "wanted"),
    [(2, [3.5, 8.0]), (3, [4.0, 9.0]), (4, [4.0, 9.0]), (9, [4.0, 9.0]), (1, [2.5, 6.5])],
)
def test_the_largest_of_each_class_are_averaged(ratio, wanted):
    values = tensor([[1, 9], [2, 7], [3, 4], [4, 6], [99, 99]])
    valid = torch.tensor([[True, True, True, True, False]])

    assert [wanted] == losses.top_k_mean(values, valid, ratio).tolist()


def test_a_bag_without_snippets_scores_nothing():
    values, valid = torch.ones(1, 3, 2), torch.zeros(1, 3, dtype=torch.bool)

    assert [[0, 0]] == losses.top_k_mean(values, valid, 2).tolist()
    assert [[0, 0]] == losses.linear_softmax_mean(values, valid).tolist()


def test_linear_softmax_weighs_snippets_by_themselves():
    probabilities = tensor([[0.5, 0], [1, 0], [0.5, 0.2], [0.9, 0.9]])
    valid = torch.tensor([[True, True, True, False]])

    # The squares sum to 1.5 of 2, and to .04 of .2; the divisor is a millionth larger.
    seen = losses.linear_softmax_mean(probabilities, valid)
    wanted = [1.5 / (2 + 1e-6), 0.04 / (0.2 + 1e-6)]
    assert seen[0].tolist() == pytest.approx(wanted, rel=SHARE)


def test_bags_without_tags_count_as_such():
    seen = losses.bag_cross_entropy(tensor([0.5, 0.25], [0.5, 0.5]), tensor([1, 0], [0, 0]))

    assert seen.item() == pytest.approx((3 * math.log(2) - math.log(0.75)) / 4, rel=SHARE)


@pytest.mark.parametrize(("background", "classes"), [(1, (0, 2)), (0, (0,))])
def test_the_softmax_loss_shares_its_target_among_tags_and_background(background, classes):
    logits = tensor([1, 2, 3])
    total = sum(math.exp(value) for value in (1, 2, 3))
    shares = [math.log(math.exp(label + 1) / total) for label in classes]

    seen = losses.multiple_instance_loss(logits, tensor([1, 0]), background=background)

    assert seen.item() == pytest.approx(-sum(shares) / (len(shares) + 1e-4), rel=8 * SHARE)


def test_suppression_pulls_towards_the_lowest_logit():
    logits = tensor([[1, 3, 2], [4, 0, 2]])

    seen = losses.suppressed(logits, tensor([0.5, 0]))

    assert [[[1, 2, 1.5], [0, 0, 0]]] == seen.tolist()


def test_sparsity_is_the_mean_over_valid_snippets():
    valid = torch.tensor([[True, True], [True, False]])

    seen = losses.sparsity_loss(tensor([0.2, 0.4], [0.9, 1]), valid).item()
    assert pytest.approx(0.5, rel=SHARE) == seen


def test_guide_wants_actionness_and_background_to_be_opposites():
    logits = tensor([[0, 0], [0, math.log(3)]])  # background ½ and ¾

    seen = losses.guide_loss(tensor([0.5, 1]), logits, all_valid(logits))

    assert seen.item() == pytest.approx((0 + 0.75) / 2, rel=8 * SHARE)


def test_mutual_teaches_both_modalities():
    first, second = tensor([0.2, 0.4]).requires_grad_(), tensor([0.4, 0.4]).requires_grad_()

    loss = losses.mutual_loss(first, second, all_valid(first))
    loss.backward()

    assert loss.item() == pytest.approx(0.02, rel=8 * SHARE)  # half of .04 / 2, twice
    assert first.grad.tolist()[0] == pytest.approx([-0.1, 0], rel=8 * SHARE)  # .4 - .4 is exact
    assert second.grad.tolist()[0] == pytest.approx([0.1, 0], rel=8 * SHARE)


def test_co_activity_compares_what_acts_and_what_rests():
    # The scores pick one snippet each: bag 0 acts along x and rests along y, bag 1 the other way.
    features = tensor([[1, 0], [0, 1]], [[0, 1], [1, 0]])
    logits = tensor([[50], [-50]], [[50], [-50]])

    # d(H, H) = 1, d(H_i, Lo_j) = 0: ½ (1.5 + 1.5)
    seen = losses.co_activity_loss(features, logits, torch.ones(2, 1), all_valid(features))
    assert seen.item() == pytest.approx(1.5, rel=SHARE)


def test_co_activity_is_nothing_for_bags_that_agree_or_share_no_class():
    features = tensor([[1, 0], [0, 1]], [[1, 0], [0, 1]]).requires_grad_()
    logits = tensor([[50, 0], [-50, 0]], [[50, 0], [-50, 0]])
    valid = all_valid(features)

    alike = losses.co_activity_loss(features, logits, tensor([1, 0], [1, 0]), valid)
    apart = losses.co_activity_loss(features, logits, tensor([1, 0], [0, 1]), valid)
    apart.backward()

    assert (0, 0) == (alike.item(), apart.item())
    assert 0 == features.grad.abs().max()


def test_co_activity_does_not_see_padding():
    features = torch.randn(2, 5, 3)
    logits, tags = torch.randn(2, 5, 1), torch.ones(2, 1)
    valid = torch.tensor([[True] * 3 + [False] * 2] * 2)

    short = losses.co_activity_loss(features[:, :3], logits[:, :3], tags, valid[:, :3])

    seen = losses.co_activity_loss(features, logits, tags, valid)
    torch.testing.assert_close(seen, short)


def test_the_second_round_averages_over_classes_and_valid_snippets():
    probabilities = tensor([[0.5, 0.25], [0.9, 0.9]])
    targets = tensor([[0.5, 0], [0, 0]])

    seen = losses.frame_cross_entropy(probabilities, targets, torch.tensor([[True, False]]))

    assert seen.item() == pytest.approx((math.log(2) - math.log(0.75)) / 2, rel=SHARE)


def a_step(length=12, at=6):
    """Features that turn by a right angle at ``at``."""
    features = torch.zeros(1, length, 2)
    features[0, :at, 0] = 1
    features[0, at:, 1] = 1
    return features


def test_boundary_evidence_is_highest_where_features_turn():
    evidence, inside = boundary_evidence(a_step(), all_valid(a_step()))

    # Before and after: orthogonal at 6; at 5 and 7 one of two snippets has turned, cosine 1/√2.
    side = 1 - math.sqrt(0.5)
    wanted = [0, 0, 0, 0, 0, side, 1, side, 0, 0, 0, 0]
    # 1 - cosine of what is near 1 loses digits: an error of the cosine's, scaled by at most 2.
    assert evidence[0].tolist() == pytest.approx(wanted, rel=0, abs=2 * SHARE)
    assert [False] * 2 + [True] * 8 + [False] * 2 == inside[0].tolist()


def responses_of(*values):
    return tensor([[value, 0.9] for value in values])


def test_responses_that_follow_the_features_cost_little_and_constant_ones_their_sharpness():
    features, tags = a_step(), tensor([1, 0])
    valid = all_valid(features)
    following = responses_of(*[0.1] * 6, *[0.9] * 6)
    constant = responses_of(*[0.5] * 12)
    flickering = responses_of(*[0.1, 0.9] * 6)

    costs = [
        boundary_loss(features, curve, tags, valid).item()
        for curve in (following, constant, flickering)
    ]

    # Mean evidence .2, deviation .33: only position 6 is a peak, and both others miss its .4.
    # Flickering also pays .8 at each of the five quiet positions and .8 (1 - side) twice, over 8.
    side = 1 - math.sqrt(0.5)
    wanted = [0, 0.4, 0.4 + 0.8 * (5 + 2 * (1 - side)) / 8]
    # The evidence's error, of which a fifth counts, and that of sums below 1.
    assert costs == pytest.approx(wanted, rel=0, abs=2 * SHARE)


def test_boundaries_of_bags_without_tags_do_not_count():
    features = a_step()
    loss = boundary_loss(
        features, responses_of(*[0.1, 0.9] * 6), tensor([0, 0]), all_valid(features)
    )

    assert 0 == loss.item()


def test_boundaries_do_not_see_padding():
    features, valid = torch.randn(1, 16, 3), torch.ones(1, 16, dtype=torch.bool)
    valid[0, 12:] = False
    responses, tags = torch.rand(1, 16, 2), tensor([1, 0])

    short = boundary_loss(features[:, :12], responses[:, :12], tags, valid[:, :12])

    torch.testing.assert_close(boundary_loss(features, responses, tags, valid), short)


def test_a_bag_too_short_for_a_boundary_costs_nothing():
    features = torch.randn(1, 3, 2)

    loss = boundary_loss(features, torch.rand(1, 3, 2), tensor([1, 0]), all_valid(features))

    assert 0 == loss.item()
