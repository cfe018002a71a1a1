"""A bank of semantics: clusters of directions, on any data; its file is held to what is wanted."""

import sys

import numpy as np
import pytest

from engine.errors import DataError
from tests.support.real_parts import torch_imports
from tests.support.small_networks import CONFIGS
from training.benchmarks.planted import plant, synthetic_timelines
from training.cli import main

with torch_imports():
    import torch

    from training.networks.semantics_bank import fit_bank, read_bank, write_bank

pytestmark = pytest.mark.torch


@pytest.mark.numeric
def test_clusters_are_found_whatever_their_length():
    rng = np.random.default_rng(0)
    directions = np.eye(3, 5)
    rows = np.repeat(directions, 40, axis=0) * rng.uniform(0.1, 9, (120, 1))
    rows += rng.normal(0, 0.005, rows.shape)

    bank = fit_bank(torch.from_numpy(rows), 3).numpy()

    nearest = (bank @ directions.T).max(axis=0)
    assert nearest.min() > 0.99
    np.testing.assert_allclose(np.linalg.norm(bank, axis=1), 1, rtol=1e-12)


def test_equal_rows_give_equal_banks_whatever_was_drawn_before():
    rows = torch.randn(64, 4)
    first = fit_bank(rows, 5)
    torch.randn(3)

    assert torch.equal(first, fit_bank(rows, 5))


@pytest.mark.parametrize("rows", ["zeros", "alike", "many"])
def test_a_bank_is_finite_for_any_rows(rows):
    given = {
        "zeros": torch.zeros(6, 3),
        "alike": torch.ones(6, 3),
        "many": torch.randn(20_500, 3),
    }[rows]

    bank = fit_bank(given, 4)

    assert (4, 3) == tuple(bank.shape)
    assert torch.isfinite(bank).all()


def test_too_few_rows_are_refused_in_words():
    with pytest.raises(DataError, match="4 vectors needs as many snippets, there are 3"):
        fit_bank(torch.ones(3, 2), 4)


def test_a_file_is_read_again_and_never_changed(tmp_path):
    path = tmp_path / "new" / "bank.npy"
    vectors = np.eye(2, 3, dtype=np.float32)
    write_bank(vectors, path)

    assert np.array_equal(vectors, read_bank(path, 2, 3))
    assert ["bank.npy"] == [one.name for one in path.parent.iterdir()]
    with pytest.raises(DataError, match="is there already"):
        write_bank(vectors, path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no bank"),
        (b"no array", "is damaged"),
        (np.zeros((2, 4), np.float32), r"is \(2, 4\), wanted \(2, 3\)"),
        (np.zeros(3, np.float32), r"is \(3,\), wanted"),
        (np.full((2, 3), np.nan, np.float32), "finite numbers"),
        (np.array([["a"] * 3] * 2), "is damaged"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_words(tmp_path, content, said):
    path = tmp_path / "bank.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)

    with pytest.raises(DataError, match=said) as caught:
        read_bank(path, 2, 3)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_command_makes_a_bank_that_a_training_starts_from(tmp_path, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["s2net", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        return caught.value.code, printed.out, printed.err

    planted, bank = tmp_path / "planted", tmp_path / "bank.npy"
    plant(synthetic_timelines(0, 6, 2, 3), planted, modality="rgb", seed=0)
    told = ("--features", planted, "--config", CONFIGS / "tsc-net-thumos14-rgb.yaml")
    small = (
        "network.width=8",
        "network.attention_width=4",
        "batches.length=16",
        "schedule.length=2",
    )
    sets = [part for one in small for part in ("--set", one)]

    code, out, _ = run("build-bank", *told, "--out", bank, "--rows", 5, "--snippets", 4)
    assert 0 == code
    assert "5 x 1024" in out
    assert f"--set network.bank={bank} --set network.bank_rows=5" in out
    sets += ["--set", f"network.bank={bank}", "--set", "network.bank_rows=5"]
    code, out, err = run("train", *told, *sets, "--out", tmp_path / "run")
    assert 0 == code, err
    again, _, err = run("build-bank", *told, "--out", bank)
    assert 1 == again
    assert "is there already" in err
