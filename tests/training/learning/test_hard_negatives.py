"""What a network finds where nothing happens, and what it makes of being told so."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DataError
from engine.grid import Grid
from tests.support.real_parts import torch_imports
from tests.support.tiny_training import a_record, planted, small_config
from training.records import FeatureSet

with torch_imports():
    from training.learning.hard_negatives import hardest_stretches
    from training.learning.scoring import score_video
    from training.learning.train import train

pytestmark = pytest.mark.torch

CURVES = st.lists(
    st.lists(st.integers(0, 9), max_size=12).map(lambda levels: np.array(levels, np.float32)),
    max_size=4,
)


@given(CURVES, st.integers(1, 6), st.integers(0, 9))
def test_stretches_hold_the_highest_scores_and_do_not_overlap(curves, length, n_wanted):
    found = hardest_stretches(curves, length, n_wanted)

    assert len(found) <= n_wanted
    taken = [np.zeros(len(curve), int) for curve in curves]
    for video, first, end in found:
        assert end - first == min(length, len(curves[video]))
        taken[video][first:end] += 1
    assert all((rows <= 1).all() for rows in taken)
    peaks = [curves[video][first:end].max() for video, first, end in found]
    if found and n_wanted > len(found):
        # Nothing free is left that would hold another whole stretch.
        for curve, rows in zip(curves, taken, strict=True):
            free = "".join("x" if row else "." for row in rows)
            middles = range(len(curve))
            starts = {min(max(at - length // 2, 0), max(len(curve) - length, 0)) for at in middles}
            whole = min(length, len(curve))
            assert not any(free[at : at + whole] == "." * whole for at in starts if whole)
    if found:
        assert peaks[0] == max(curve.max() for curve in curves if len(curve))


def quiet_footage(seed=5):
    """Long videos in which something like "a" comes and goes that is none: "a", but upside down
    in feature 2."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(4):
        rows = rng.normal(0, 0.1, (60, 3)) + np.array([0, 0, i % 2])
        for start in range(5, 55, 10):
            rows[start : start + 3] += [0.8, 0, -1]
        records.append(a_record(f"quiet-{i}", rows, camera=f"cam-{i % 2}", tags=None))
    return FeatureSet((), tuple(records), Grid(25, 4, 4), 3)


def highest(run, quiet):
    """The mean over quiet videos of the highest score in them."""
    found = []
    for record in quiet.records:
        cas, attention = score_video(run.network, record, run.camera_mean(record.camera))
        found.append((cas * attention[:, None]).max())
    return float(np.mean(found))


@pytest.mark.parametrize("rounds", [1, 2])
def test_less_is_found_in_footage_of_its_kind_afterwards(tmp_path, rounds):
    config = small_config(rounds=rounds, schedule__length=60)
    videos, seen, fresh = planted(24), quiet_footage(), quiet_footage(seed=6)

    before = train(config, videos, tmp_path / "before", threads=1)
    after = train(config, videos, tmp_path / "after", quiet=seen, threads=1)

    assert highest(after, fresh) < highest(before, fresh)
    assert before.identity != after.identity


def test_quiet_footage_of_another_form_is_refused_in_one_line(tmp_path):
    other = replace(quiet_footage(), grid=Grid(25, 4, 2))
    with pytest.raises(DataError, match="extract both with one bundle"):
        train(small_config(), planted(8), tmp_path / "run", quiet=other, threads=1)
    assert not (tmp_path / "run").exists()


def test_a_training_with_quiet_footage_goes_on_where_it_was(tmp_path):
    config = small_config(rounds=1, schedule__length=12)
    whole = train(config, planted(8), tmp_path / "whole", quiet=quiet_footage(), threads=1)

    class Interrupted(Exception):  # noqa: N818 - no error
        pass

    def interrupt(progress):
        if progress.phase == "round_2" and progress.step == 6:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(
            config,
            planted(8),
            tmp_path / "parts",
            quiet=quiet_footage(),
            threads=1,
            on_progress=interrupt,
        )
    again = train(config, planted(8), tmp_path / "parts", quiet=quiet_footage(), threads=1)

    for one, other in zip(whole.network.parameters(), again.network.parameters(), strict=True):
        assert one.equal(other)
