import random

import numpy as np
import pytest

from tests.faults.trend import slope_of


def test_a_straight_line_has_its_slope_and_no_error():
    slope = slope_of([0, 1, 2, 3, 4], [7, 9, 11, 13, 15])

    assert pytest.approx(2) == slope.value
    assert 0 == slope.error


def test_what_never_changes_has_no_slope():
    slope = slope_of(range(100), [17] * 100)

    assert (0, 0) == (slope.value, slope.error)


@pytest.mark.parametrize("memory", [0.0, 0.8])
def test_the_error_is_how_far_slopes_of_mere_noise_stray(memory: float):
    rng = random.Random(1)  # noqa: S311 - the same noise every time, no secret
    slopes = [slope_of(range(200), _noise(rng, 200, memory)) for _ in range(300)]

    strays = np.std([slope.value for slope in slopes])
    assert pytest.approx(strays, rel=0.15) == np.mean([slope.error for slope in slopes])


def _noise(rng: random.Random, n_samples: int, memory: float) -> list[float]:
    noise = [rng.gauss(0, 1)]
    while len(noise) < n_samples:
        noise.append(memory * noise[-1] + rng.gauss(0, 1))
    return noise
