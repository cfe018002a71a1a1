"""Ablations: every variant under every seed, once, and a table that says so."""

import csv

import pytest

from engine.errors import DataError
from engine.files.strict_yaml import read_yaml
from tests.support.real_parts import torch_imports
from tests.support.small_networks import CONFIGS
from tests.support.tiny_training import planted, small_content

with torch_imports():
    from training.benchmarks.ablate import AblationTable, Trial, Variant, ablate, read_variants
    from training.config import training_config, with_overrides

pytestmark = pytest.mark.torch


class Judge:
    """Says what it was asked, and how often."""

    def __init__(self):
        self.n_asked = 0

    def __call__(self, run):
        self.n_asked += 1
        return {"sta": float(run.config.network.config.interaction.sta), "seed": run.config.seed}


def variants():
    return [Variant("full", {}), Variant("no sta", {"network.interaction.sta": False})]


def run_all(out, judge, seeds=(0, 1), **changes):
    content = small_content(schedule__length=1, **changes)
    return ablate(content, variants(), seeds, planted(8), out, judge, device="cpu", threads=1)


def test_every_variant_is_judged_under_every_seed(tmp_path):
    table = run_all(tmp_path, Judge())

    assert [
        Trial("full", 0, {"sta": 1, "seed": 0}),
        Trial("full", 1, {"sta": 1, "seed": 1}),
        Trial("no sta", 0, {"sta": 0, "seed": 0}),
        Trial("no sta", 1, {"sta": 0, "seed": 1}),
    ] == list(table.trials)
    with (tmp_path / "ablation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert ["1.0", "1.0", "0.0", "0.0"] == [row["sta"] for row in rows]
    assert ["full", "full", "no sta", "no sta"] == [row["variant"] for row in rows]


def test_what_is_finished_is_not_done_again(tmp_path):
    judge = Judge()
    first = run_all(tmp_path, judge, seeds=(0,))
    before = (tmp_path / "full/seed-0/checkpoint.safetensors").stat().st_mtime_ns
    again = run_all(tmp_path, judge)

    assert 4 == judge.n_asked
    assert first.trials[0] == again.trials[0]
    assert before == (tmp_path / "full/seed-0/checkpoint.safetensors").stat().st_mtime_ns


def test_another_configuration_in_the_same_folder_is_refused(tmp_path):
    run_all(tmp_path, Judge(), seeds=(0,))
    with pytest.raises(DataError, match="choose another --out"):
        run_all(tmp_path, Judge(), optimiser__clip_norm=1.0)


def test_the_table_has_mean_and_sample_deviation():
    trials = [Trial("a", s, {"map": m}) for s, m in enumerate((70.0, 72.0, 74.0))]
    table = AblationTable((*trials, Trial("b", 0, {"map": 60.0, "f1": 0.5})))

    assert [
        "| variant | seeds | map | f1 |",
        "|---|---:|---:|---:|",
        "| a | 3 | 72.0 ± 2.0 | - |",
        "| b | 1 | 60.0 | 0.5 |",
    ] == table.markdown().splitlines()


def test_a_typo_is_found_before_the_first_training(tmp_path):
    wrong = [*variants(), Variant("typo", {"network.interaction.sat": False})]
    with pytest.raises(DataError, match=r"typo: there is no key network\.interaction\.sat"):
        ablate(small_content(), wrong, [0], planted(8), tmp_path / "o", Judge())
    with pytest.raises(DataError, match="two variants are called full"):
        ablate(small_content(), [*variants()] * 2, [0], planted(8), tmp_path / "o", Judge())
    assert not (tmp_path / "o").exists()


def test_variants_are_read_from_yaml_values():
    content = {"full": None, "off": {"network.interaction.sta": False}}

    assert (Variant("full", {}), Variant("off", {"network.interaction.sta": False})) == (
        read_variants(content, "f")
    )
    with pytest.raises(DataError, match="f: a is 3"):
        read_variants({"a": 3}, "f")
    with pytest.raises(DataError, match="names no variant"):
        read_variants({}, "f")
    with pytest.raises(DataError, match="a name that a folder can have"):
        Variant("../x", {})


@pytest.mark.parametrize("data", ["scenes", "planted"])
def test_every_shipped_variant_is_another_configuration(data):
    content, _ = read_yaml(CONFIGS / f"s2net-{data}.yaml")
    listed, _ = read_yaml(CONFIGS / f"ablation-{data}.yaml")
    known = read_variants(listed, data)

    configs = [
        training_config(with_overrides(content, variant.changes, variant.name), variant.name)
        for variant in known
    ]

    assert {path.name for path in CONFIGS.glob("ablation-*.yaml")} == {
        "ablation-scenes.yaml",
        "ablation-planted.yaml",
    }
    assert len(configs) == len({repr(config) for config in configs})
