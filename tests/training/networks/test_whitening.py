"""Whitening of few videos: weak directions are held down, less the more videos there are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DataError
from tests.support.real_parts import torch_imports

with torch_imports():
    import torch

    from training.networks.whitening import Whitening

pytestmark = pytest.mark.torch
N_FEATURES = 6


def fitted(rows, n_dims, shrink, n_videos):
    whitening = Whitening(rows.shape[1], n_dims, shrink).double()
    whitening.fit(rows, n_videos)
    return whitening


def some_rows(seed=0):
    generator = torch.Generator().manual_seed(seed)
    strengths = torch.tensor([5.0, 3, 2, 1, 0.5, 0.1])
    return (torch.randn(200, N_FEATURES, generator=generator) * strengths + 3).double()


def test_two_directions_by_hand():
    # Variances 8 and 2: of five videos each has a share of 10 / 5 = 2. Weights 8/10 and 2/4.
    rows = torch.tensor([[12**0.5, 0], [-(12**0.5), 0], [0, 3**0.5], [0, -(3**0.5)]]).double()

    matrix = fitted(rows, 2, 1.0, 5).matrix

    size = ((0.8**2 + 0.5**2) / 2) ** 0.5
    wanted = torch.diag(torch.tensor([0.8 / 8**0.5, 0.5 / 2**0.5]).double()) / size
    torch.testing.assert_close(matrix, wanted, rtol=0, atol=1e-7)


def test_directions_that_are_left_out_count_in_the_total():
    rows = torch.tensor([[12**0.5, 0], [-(12**0.5), 0], [0, 3**0.5], [0, -(3**0.5)]]).double()
    whitening = Whitening(2, 1, 1.0).double()

    whitening.fit(rows, 5)

    # One direction alone always has unit variance, whatever its weight.
    torch.testing.assert_close(
        whitening.matrix[:, 0], torch.tensor([8**-0.5, 0]).double(), rtol=0, atol=1e-7
    )


@given(shrink=st.floats(0, 100), n_videos=st.integers(1, 10**6), n_dims=st.integers(1, N_FEATURES))
def test_the_mean_variance_is_one_and_stronger_directions_keep_more(shrink, n_videos, n_dims):
    rows = some_rows()

    variances = fitted(rows, n_dims, shrink, n_videos)(rows).var(dim=0)

    assert float(variances.mean()) == pytest.approx(1)
    assert bool((variances.diff() <= 1e-6).all())


@given(n_videos=st.integers(1, 10**6))
def test_without_shrinking_the_number_of_videos_means_nothing(n_videos):
    rows = some_rows()

    assert torch.equal(fitted(rows, 4, 0.0, n_videos).matrix, fitted(rows, 4, 0.0, 7).matrix)


def test_with_many_videos_it_fades():
    rows = some_rows()
    plain = fitted(rows, 4, 0.0, 1)(rows)

    far = [float((fitted(rows, 4, 1.0, n)(rows) - plain).abs().max()) for n in (1, 100, 10_000)]

    assert far[0] > far[1] > 50 * far[2]


def test_each_modality_is_whitened_by_itself():
    """The filter takes the halves of the answer for modalities, so that none may hold both."""
    rows = some_rows()
    whitening = Whitening(N_FEATURES, 4, 1.0, n_parts=2).double()

    whitening.fit(rows, 5)

    alone = [fitted(half, 2, 1.0, 5)(half) for half in rows.chunk(2, dim=1)]
    torch.testing.assert_close(whitening(rows), torch.cat(alone, dim=1))
    whitening.fit(rows, 5)  # again: nothing of the first fit is left
    torch.testing.assert_close(whitening(rows), torch.cat(alone, dim=1))


@pytest.mark.parametrize(("n_dims", "n_parts"), [(3, 2), (0, 4), (4, 4)])
def test_what_cannot_be_parted_is_refused(n_dims, n_parts):
    with pytest.raises(DataError, match=f"modalities is {n_parts}.*cannot be parted"):
        Whitening(N_FEATURES, n_dims, n_parts=n_parts)
