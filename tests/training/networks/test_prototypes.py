"""Semantic prototypes: their start, their average, what they answer, what pulls at them.

Every number here has at most 64 roundings behind it: an exponential or a logarithm counts for
eight (``error_bounds``), a normalisation of two numbers for five; terms have one sign, or are
differences no smaller than half their larger part. ``assert_close`` allows vectors more than that:
1.3e-6 of a number and 1e-5.
"""

import dataclasses
import math

import pytest

from tests.support.error_bounds import gamma
from tests.support.real_parts import torch_imports

with torch_imports():
    import torch
    from torch.nn import functional

    from training.networks.prototypes import (
        Prototypes,
        SemanticReader,
        bag_contrast,
        bag_vectors,
        prototype_contrast,
    )
    from training.networks.s2net_config import paper_config

pytestmark = [pytest.mark.torch, pytest.mark.numeric]

SHARE = 2 * gamma(64)

N_CLASSES, WIDTH = 2, 2
EVERY = [[1.0, 1.0, 1.0]]


def some_prototypes(**fields):
    config = dataclasses.replace(
        paper_config().prototypes, **({"momentum": 0.5, "temperature": 1.0} | fields)
    )
    return Prototypes(config, N_CLASSES, WIDTH)


def known_prototypes():
    """Class 0 along x, class 1 along y, background against x."""
    prototypes = some_prototypes()
    vectors = torch.tensor([[[2.0, 0], [0, 3], [-1, 0]]])
    prototypes.update(vectors, torch.tensor(EVERY))
    return prototypes


def test_a_prototype_starts_as_the_mean_direction_of_its_first_bags():
    prototypes = some_prototypes()
    vectors = torch.tensor([[[5.0, 0], [9, 9], [0, 1]], [[0, 0.1], [9, 9], [0, 2]]])

    prototypes.update(vectors, torch.tensor([[1.0, 0, 1], [1, 0, 1]]))

    half = math.sqrt(0.5)
    torch.testing.assert_close(prototypes.vectors, torch.tensor([[half, half], [0, 0], [0, 1]]))
    assert ([1, 0, 1], [2, 0, 2]) == (prototypes.seen.tolist(), prototypes.counts.tolist())


def test_a_prototype_moves_towards_new_bags_and_stays_a_unit_vector():
    prototypes = known_prototypes()

    prototypes.update(torch.tensor([[[0.0, 7], [7, 7], [0, 7]]]), torch.tensor([[1.0, 0, 0]]))

    half = math.sqrt(0.5)  # unit(½ (1, 0) + ½ (0, 1))
    torch.testing.assert_close(prototypes.vectors, torch.tensor([[half, half], [0, 1], [-1, 0]]))


def test_momentum_is_the_share_that_is_kept():
    prototypes = some_prototypes(momentum=0.75)
    for vector in ([1.0, 0.0], [0.0, 1.0]):
        prototypes.update(torch.tensor([[vector] * 3]), torch.tensor(EVERY))

    wanted = torch.tensor([0.75, 0.25]) / math.hypot(0.75, 0.25)
    torch.testing.assert_close(prototypes.vectors[0], wanted)


def test_averaged_prototypes_take_no_gradient_and_are_saved():
    prototypes = known_prototypes()

    assert [] == list(prototypes.parameters())
    assert {"vectors", "counts", "active"} == set(prototypes.state_dict())
    features = torch.randn(4, WIDTH, requires_grad=True)
    prototypes.update(features.reshape(1, 4, WIDTH)[:, :3], torch.tensor(EVERY))
    assert not prototypes.vectors.requires_grad


def test_learned_prototypes_are_parameters_and_no_update_moves_them():
    prototypes = some_prototypes(source="learned")
    before = prototypes.vectors.detach().clone()

    prototypes.update(torch.ones(1, 3, WIDTH), torch.tensor(EVERY))

    assert ["vectors"] == [name for name, _ in prototypes.named_parameters()]
    assert torch.equal(before, prototypes.vectors)
    assert [1, 1, 1] == prototypes.seen.tolist()


def test_a_response_is_how_much_nearer_than_background_a_class_is():
    prototypes = known_prototypes()

    # (1, 0): cosines 1, 0 and -1; (0, 1): 0, 1 and 0.
    assert [[2, 1], [0, 1]] == prototypes(torch.tensor([[3.0, 0], [0, 0.1]])).tolist()


def test_a_class_never_seen_answers_nothing():
    prototypes = some_prototypes()
    prototypes.update(torch.ones(1, 3, WIDTH), torch.tensor([[0.0, 0, 1]]))

    assert [[0, 0]] == prototypes(torch.tensor([[3.0, 0]])).tolist()


def test_prototypes_are_read_only_after_the_warm_up():
    prototypes = some_prototypes(warm_up_steps=3)
    without, guided = torch.zeros(1), torch.ones(1)
    seen = []
    for step in (1, 2, 3, 4):
        prototypes.end_warm_up_at(step)
        seen.append(prototypes.blended(without, guided).item())

    assert [0, 0, 1, 1] == seen
    assert 1 == some_prototypes(warm_up_steps=0).active.item()


def test_the_reader_changes_nothing_at_first_and_reads_later():
    torch.manual_seed(0)
    reader, prototypes = SemanticReader(WIDTH, heads=1), known_prototypes()
    embedding = torch.randn(1, 3, WIDTH)
    prototypes.end_warm_up_at(10_000)

    assert torch.equal(embedding, reader(embedding, prototypes))
    torch.nn.init.eye_(reader.out.weight)
    assert not torch.equal(embedding, reader(embedding, prototypes))


def test_a_bags_vector_pools_the_snippets_that_show_the_class_most():
    features = torch.tensor([[[1.0, 0], [0, 1], [5, 5], [9, 9]]])
    weights = torch.tensor([[[0.3], [0.1], [0.2], [0.0]]])
    valid = torch.tensor([[True, True, True, True]])

    # k = 2: (.3 (1, 0) + .2 (5, 5)) / .5
    seen = bag_vectors(features, weights, valid, ratio=2)
    torch.testing.assert_close(seen, torch.tensor([[[2.6, 2.0]]]))


def a_bag_contrasted(tags, *vectors):
    rows = torch.tensor([vectors], requires_grad=True)
    return prototype_contrast(rows, torch.tensor([tags]), known_prototypes(), temperature=1.0)


def test_the_contrast_is_the_share_of_the_own_prototype():
    seen = a_bag_contrasted([1.0, 0.0], (1.0, 0.0), (9.0, 9.0), (0.0, 1.0))

    # v = x: e^1 to its own, e^0 to class 1, e^-1 to the background's, e^0 to its own background;
    # h = y: e^0 to class 0, e^1 to class 1, e^0 to the background's.
    own = -math.log(math.e / (math.e + 1 + 1 / math.e + 1))
    background = -math.log(1 / (1 + math.e + 1))
    assert own + background == pytest.approx(seen.item(), rel=SHARE)


def test_other_tags_of_a_bag_are_no_opponents():
    seen = a_bag_contrasted([1.0, 1.0], (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0))

    # v_0 = x: own e, background e^-1, h = -x e^-1. v_1 = y: own e, background 1, h 1. h: own e,
    # class 0 e^-1, class 1 1.
    first = -math.log(math.e / (math.e + 2 / math.e))
    second = -math.log(math.e / (math.e + 2))
    background = -math.log(math.e / (math.e + 1 / math.e + 1))
    assert (first + second) / 2 + background == pytest.approx(seen.item(), rel=SHARE)


def test_a_bag_without_tags_only_places_its_background():
    seen = a_bag_contrasted([0.0, 0.0], (1.0, 0.0), (9.0, 9.0), (-1.0, 0.0))

    wanted = -math.log(math.e / (math.e + 1 / math.e + 1))
    assert wanted == pytest.approx(seen.item(), rel=SHARE)


def test_the_contrast_pulls_at_the_bag_alone():
    prototypes = known_prototypes()
    rows = torch.randn(2, 3, WIDTH, requires_grad=True)

    prototype_contrast(rows, torch.tensor([[1.0, 0], [0, 1]]), prototypes, 1.0).backward()

    assert torch.isfinite(rows.grad).all()
    assert rows.grad[0, 0].abs().max() > 0
    assert 0 == rows.grad[0, 1].abs().max()  # class 1 does not happen in bag 0


def test_the_contrast_before_any_prototype_is_nothing():
    rows = torch.randn(1, 3, WIDTH, requires_grad=True)

    assert 0 == prototype_contrast(rows, torch.tensor([[1.0, 0]]), some_prototypes(), 1.0).item()


def test_vectors_of_one_class_attract_each_other():
    # Two bags of class 0 along x, whose backgrounds lie along y: a partner has cosine 1 and
    # exp(1), the two opponents cosine 0 and 1.
    rows = torch.tensor([[[1.0, 0], [9, 9], [0, 1]], [[2, 0], [9, 9], [0, 2]]])

    seen = bag_contrast(rows, torch.tensor([[1.0, 0], [1, 0]]), temperature=1.0)

    assert -math.log(math.e / (math.e + 2)) == pytest.approx(seen.item(), rel=SHARE)


def test_a_single_bag_attracts_nothing():
    rows = functional.normalize(torch.randn(1, 3, WIDTH), dim=-1)

    assert 0 == bag_contrast(rows, torch.tensor([[1.0, 0]]), temperature=1.0).item()
