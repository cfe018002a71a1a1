"""The networks: shapes, what must not influence an answer, export, learning."""

import copy
import dataclasses
import functools
import warnings
from pathlib import Path

import numpy as np
import pytest

from engine.backends import open_backend
from engine.errors import BundleError, DataError
from engine.files.strict_yaml import parse, plain
from tests.support.error_bounds import HALF_ULP, U, gamma
from tests.support.real_parts import torch_imports
from tests.support.small_networks import small_network_config

with torch_imports():
    import torch

    from training.export.parity import TOLERANCE
    from training.networks import NETWORKS
    from training.networks.base import BagBatch
    from training.networks.s2net_config import S2NetConfig, light_config, paper_config

pytestmark = pytest.mark.torch

FEATURE_DIM, N_CLASSES = 12, 3
WIDEST_SUM = 64  # terms; attention has as many as the window is long, if that is more
# Answers are at most 1, and no longer chain of such sums leads to one.
ROUNDING_IN_FLOAT64 = gamma(64 * WIDEST_SUM, HALF_ULP["float64"])
# Of networks with a file of their own, as shipped and in the form that sees nothing later.
OTHERS = (
    "two-stream",
    "two-stream-rgb",
    "two-stream-causal",
    "sal",
    "sal-rgb",
    "sal-causal",
    "sdanet",
    "sdanet-rgb",
    "sdanet-causal",
    "tsc-net",
    "tsc-net-rgb",
    "tsc-net-causal",
)
FORMS = (
    "light",
    "light_all",
    "light_base",
    "light_fixed",
    "light_feature",
    "paper",
    "paper_self",
    "paper_learned",
    *OTHERS,
)


@pytest.fixture(scope="module", autouse=True)
def torch_is_here():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small only wait for each other's threads
    yield
    torch.set_num_threads(before)


def replaced(config, **sections):
    """The configuration with some fields of some sections changed."""
    return dataclasses.replace(
        config,
        **{
            name: dataclasses.replace(getattr(config, name), **fields)
            for name, fields in sections.items()
        },
    )


def kind_of(form):
    return form.removesuffix("-rgb").removesuffix("-causal") if form in OTHERS else "s2net"


def a_config(form):
    """A small network of each form."""
    if form in OTHERS:
        of = "thumos14-rgb" if form.endswith("-rgb") else "thumos14"
        causal = CAUSAL[kind_of(form)] if form.endswith("-causal") else {}
        published = PUBLISHED.get(form, {})
        return small_network_config(kind_of(form), of, **published, **causal, frame=1.0)
    if form.startswith("light"):
        light = replaced(light_config(), trunk={"whitening_dims": 8, "width": 16})
        return light if form == "light" else replaced(light, **LIGHT_FORMS[form])
    paper = replaced(
        paper_config(modalities=1 if form == "paper_self" else 2, width=16),
        prototypes={"warm_up_steps": 2},
        objective={"ramp_steps": 1},
    )
    return replaced(paper, **PAPER_FORMS.get(form, {}))


# Where the small form is not as wide as it is published.
PUBLISHED = {"sal": {"rank": 0}, "tsc-net": {"width": 0}}
# What else must change for no snippet to see later ones.
CAUSAL = {
    "two-stream": {"causal": True},
    "sdanet": {"causal": True},
    "tsc-net": {"causal": True},
    "sal": {"causal": True, "fusion": "product"},
}
LIGHT_FORMS = {
    "light_all": {
        "interaction": {"lta": True},
        "prototypes": {"source": "ema", "fuse": True, "warm_up_steps": 0},
        "objective": {"contrast": 0.1, "boundary": 0.1},
    },
    "light_fixed": {
        "interaction": {"lta": True, "fusion": False},
        "objective": {"pooling": "topk", "contrast": 0.1},
    },
    "light_feature": {
        "interaction": {"level": "feature", "lta": True, "heads": 4},
        "prototypes": {"source": "ema", "inject": True, "warm_up_steps": 0},
    },
    "light_base": {
        "interaction": {"sta": False},
        "objective": {
            "activation": "softmax",
            "pooling": "topk",
            "actionness": True,
            "suppressed_bag": 1.0,
            "sparsity": 0.1,
            "guide": 0.1,
        },
    },
}
PAPER_FORMS = {"paper_learned": {"prototypes": {"source": "learned", "warm_up_steps": 0}}}


def a_network(form, seed=0):
    torch.manual_seed(seed)
    entry = NETWORKS[kind_of(form)]
    return entry.build(a_config(form), feature_dim=FEATURE_DIM, n_classes=N_CLASSES)


def a_trained_network(form):
    return copy.deepcopy(trained(form))


@functools.cache
def trained(form):
    """After a few steps: prototypes are read, and what started at zero is not any more."""
    network = a_network(form)
    network.fit_input(torch.randn(64, FEATURE_DIM), untagged(64), 64)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for step in range(4):
        take_step(network, optimizer, a_batch(seed=step), step)
    return network.eval()


def a_batch(seed=0, length=24):
    """Two sequences: two bags end to end, and one bag with padding."""
    rng = torch.Generator().manual_seed(seed)
    bags = torch.full((2, length), -1)
    bags[0, : length // 2], bags[0, length // 2 :], bags[1, : length - 6] = 0, 1, 2
    valid = bags >= 0
    features = torch.randn(2, length, FEATURE_DIM, generator=rng) * valid.unsqueeze(-1)
    tags = torch.tensor([[1.0, 0, 0], [0, 0, 0], [1, 0, 1]])
    return BagBatch(features, valid, bags, tags)


def untagged(n_rows):
    return torch.zeros(n_rows, N_CLASSES)


def take_step(network, optimizer, batch, step):
    scores = network(batch.features, batch.valid)
    terms = network.losses(scores, batch, step)
    optimizer.zero_grad()
    torch.stack(list(terms.values())).sum().backward()
    optimizer.step()
    network.after_step(scores, batch, step)
    return {name: term.item() for name, term in terms.items()}


def answers(network, features, valid):
    with torch.no_grad():
        scores = network(features, valid)
    return scores.cas, scores.attention, scores.video_scores


@pytest.mark.parametrize("form", FORMS)
def test_answers_have_their_shapes_and_are_probabilities_zero_on_padding(form):
    network, batch = a_trained_network(form), a_batch()

    cas, attention, video = answers(network, batch.features, batch.valid)

    assert [(2, 24, 3), (2, 24), (2, 3)] == [tuple(x.shape) for x in (cas, attention, video)]
    for values in (cas, attention, video):
        assert 0 <= values.min() <= values.max() <= 1
    assert 0 == cas[~batch.valid].abs().max() == attention[~batch.valid].abs().max()
    assert cas[batch.valid].std() > 1e-3


# To the bit: both calls have the same shapes, so the same kernels, and padding enters as zero.
@pytest.mark.numeric
@pytest.mark.parametrize("form", FORMS)
def test_what_lies_on_padding_never_counts(form):
    network, batch = a_trained_network(form), a_batch()
    wanted = answers(network, batch.features, batch.valid)
    dirty = torch.where(batch.valid.unsqueeze(-1), batch.features, torch.nan)

    seen = answers(network, dirty, batch.valid)

    assert all(torch.equal(one, other) for one, other in zip(wanted, seen, strict=True))


@pytest.mark.numeric
@pytest.mark.parametrize("form", FORMS)
def test_a_gap_inside_a_window_never_counts(form):
    network, batch = a_trained_network(form), a_batch()
    valid = batch.valid.clone()
    valid[0, [0, 7, 8, 20]] = False
    wanted = answers(network, batch.features, valid)

    seen = answers(network, batch.features + 5 * ~valid.unsqueeze(-1), valid)

    assert all(torch.equal(one, other) for one, other in zip(wanted, seen, strict=True))


@pytest.mark.numeric
@pytest.mark.parametrize("form", FORMS)
def test_an_answer_depends_neither_on_neighbours_in_the_batch_nor_on_the_padding(form):
    """In float64, where what rounds is far below anything that neighbours could do."""
    network, batch = a_trained_network(form).double(), a_batch()
    features = batch.features.double()
    together = answers(network, features, batch.valid)

    alone = answers(network, features[1:, :18], batch.valid[1:, :18])

    for one, other in zip(together, alone, strict=True):
        part = one[1:, :18] if one.shape[1] == 24 else one[1:]
        torch.testing.assert_close(part, other, rtol=0, atol=ROUNDING_IN_FLOAT64)


# To the bit, as above: what a snippet is answered must not wait for what comes after it.
@pytest.mark.numeric
@pytest.mark.parametrize("form", [form for form in FORMS if form.endswith("-causal")])
def test_a_causal_form_never_looks_ahead(form):
    network, batch = a_trained_network(form), a_batch()
    cas, attention, _ = answers(network, batch.features, batch.valid)
    for now in (1, 11, 20):
        later = batch.features.clone()
        later[:, now + 1 :] = torch.randn(later[:, now + 1 :].shape)
        cas_then, attention_then, _ = answers(network, later, batch.valid)

        assert torch.equal(cas[:, : now + 1], cas_then[:, : now + 1])
        assert torch.equal(attention[:, : now + 1], attention_then[:, : now + 1])
        assert not torch.equal(cas[:, now + 1 :], cas_then[:, now + 1 :])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", [1, 2, 5, 70])
def test_any_length_is_answered_and_no_snippet_at_all_too(form, length):
    network = a_trained_network(form)
    valid = torch.ones(2, length, dtype=torch.bool)
    valid[1] = False

    cas, attention, video = answers(network, torch.randn(2, length, FEATURE_DIM), valid)

    assert all(torch.isfinite(values).all() for values in (cas, attention, video))
    assert 0 == cas[1].abs().max() == attention[1].abs().max() == video[1].abs().max()


@pytest.mark.parametrize("form", FORMS)
def test_every_parameter_has_a_finite_gradient(form):
    network, batch = a_trained_network(form).train(), a_batch()
    targets = torch.rand(2, 24, N_CLASSES)
    batch = dataclasses.replace(batch, targets=targets)

    terms = network.losses(network(batch.features, batch.valid), batch, step=10)
    torch.stack(list(terms.values())).sum().backward()

    missing_ones = [name for name, one in network.named_parameters() if one.grad is None]
    assert [] == missing_ones
    assert all(torch.isfinite(one.grad).all() for one in network.parameters())


@pytest.mark.parametrize("form", FORMS)
def test_one_seed_is_one_network_and_one_training(form):
    first, second = a_trained_network_from(form), a_trained_network_from(form)

    assert first == second


def a_trained_network_from(form):
    network = a_network(form, seed=5)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    return [take_step(network, optimizer, a_batch(), step) for step in range(3)]


def test_the_terms_are_those_that_weigh_something():
    light, paper = a_network("light"), a_network("paper")
    batch = a_batch()
    pseudo = dataclasses.replace(batch, targets=torch.rand(2, 24, N_CLASSES))

    assert ["bag"] == terms_of(light, batch, step=100)
    assert ["bag", "frame"] == terms_of(light, pseudo, step=100)
    always = ["bag", "co_activity", "guide", "mutual", "sparsity", "suppressed_bag"]
    assert always == terms_of(paper, batch, step=0)
    assert sorted([*always, "boundary", "contrast"]) == terms_of(paper, batch, step=10)


def terms_of(network, batch, step):
    return sorted(network.losses(network(batch.features, batch.valid), batch, step))


def exported(network, path):
    """``localizer.onnx`` without the background input, by the exporter that needs no extras."""

    class Outputs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network

        def forward(self, features, valid):
            scores = self.inner(features, valid)
            return scores.cas, scores.attention, scores.video_scores

    names = ("features", "valid", "cas", "attention")
    axes = {name: {0: "B", 1: "T"} for name in names} | {"video_scores": {0: "B"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that exporter is deprecated; the new needs onnxscript
        torch.onnx.export(
            Outputs().eval(),
            (torch.randn(2, 24, FEATURE_DIM), torch.ones(2, 24)),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["features", "valid"],
            output_names=["cas", "attention", "video_scores"],
            dynamic_axes=axes,
        )
    return path


@pytest.mark.numeric
@pytest.mark.openvino
@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_an_exported_network_gives_the_same_for_any_batch_and_length(tmp_path: Path, form):
    network = a_trained_network(form)
    path = exported(network, tmp_path / "localizer.onnx")
    backend = open_backend("openvino", path, precision="f32", threads=1)
    for batch, length in ((1, 24), (3, 7), (2, 150)):
        features = torch.randn(batch, length, FEATURE_DIM)
        valid = torch.ones(batch, length)
        valid[0, length // 2 :] = 0
        valid[-1, :2] = 0
        seen = backend.run({"features": features.numpy(), "valid": valid.numpy()})
        exact = answers(copy.deepcopy(network).double(), features.double(), valid.double())
        bound = max(WIDEST_SUM, length) * moved_by_a_rounding(network, features, valid)
        in_torch = answers(network, features, valid)

        # Far inside what parity promises of an export.
        assert bound < TOLERANCE
        for name, wanted, too in zip(
            ("cas", "attention", "video_scores"), exact, in_torch, strict=True
        ):
            np.testing.assert_allclose(seen[name], wanted.numpy(), rtol=0, atol=bound)
            np.testing.assert_allclose(too.numpy(), wanted.numpy(), rtol=0, atol=bound)
    backend.close()


@pytest.mark.numeric
@pytest.mark.openvino
def test_segments_of_equal_score_are_chosen_alike_in_both(tmp_path: Path):
    """Where no prototype answers, all score alike; whose order was left to the runtime, attended
    to other segments in one window of six."""
    network = a_trained_network("light_feature")
    path = exported(network, tmp_path / "localizer.onnx")
    backend = open_backend("openvino", path, precision="f32", threads=1)
    valid = ((torch.arange(24) >= 2) & (torch.arange(24) < 12)).float().unsqueeze(0)
    for seed in range(24):
        features = torch.randn(1, 24, FEATURE_DIM, generator=torch.Generator().manual_seed(seed))
        seen = backend.run({"features": features.numpy(), "valid": valid.numpy()})["cas"]
        bound = 2 * WIDEST_SUM * moved_by_a_rounding(network, features, valid, n_draws=1)
        wanted = answers(network, features, valid)[0].numpy()

        np.testing.assert_allclose(seen, wanted, rtol=0, atol=bound)
    backend.close()


def moved_by_a_rounding(network, features, valid, n_draws=4):
    """How far answers move if every weight is off by one rounding of float32, either way.

    A sum of n products is the exact one of weights off by at most gamma_n (Higham, section 3.1),
    so n times this is how far an answer may move. An estimate, for signs are drawn; but roundings
    add up like sqrt(n), not like n.
    """
    exact = copy.deepcopy(network).double()
    given = features.double(), valid.double()
    wanted, moved = answers(exact, *given), U
    for seed in range(n_draws):
        rng, other = torch.Generator().manual_seed(seed), copy.deepcopy(exact)
        with torch.no_grad():
            for weight in other.parameters():
                weight.mul_(1 + U * (2 * torch.randint(0, 2, weight.shape, generator=rng) - 1))
        seen = answers(other, *given)
        apart = ((a - b).abs().max().item() for a, b in zip(seen, wanted, strict=True))
        moved = max(moved, *apart)
    return moved


def planted(rng, n_clips=32, length=16):
    """Clips of noise; in every other one a class's direction is added for six snippets."""
    features = rng.standard_normal((n_clips, length, FEATURE_DIM)).astype(np.float32)
    truth = np.zeros((n_clips, length, N_CLASSES), np.float32)
    for clip in range(0, n_clips, 2):
        label, start = int(rng.integers(N_CLASSES)), int(rng.integers(length - 6))
        features[clip, start : start + 6, label] += 4
        truth[clip, start : start + 6, label] = 1
    return torch.from_numpy(features), torch.from_numpy(truth)


# What is learned differs between CPUs, for roundings grow with every step; that it is, must not.
@pytest.mark.numeric
def test_the_light_network_finds_when_from_tags_that_say_only_what():
    rng = np.random.default_rng(0)
    network = a_network("light")
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    features, truth = planted(rng)
    rows = features.reshape(-1, FEATURE_DIM)
    network.fit_input(rows, untagged(len(rows)), len(rows))
    for step in range(60):
        features, truth = planted(rng)
        clips = torch.arange(len(features)).reshape(-1, 4)  # four clips a sequence
        bags = clips.repeat_interleave(features.shape[1], dim=1)
        joined = features.reshape(len(clips), -1, FEATURE_DIM)
        batch = BagBatch(joined, bags >= 0, bags, truth.amax(dim=1))
        take_step(network, optimizer, batch, step)

    features, truth = planted(np.random.default_rng(1))
    cas, _, _ = answers(network.eval(), features, torch.ones(features.shape[:2]))

    assert cas[truth > 0].median() > 0.5
    assert cas[truth == 0].median() < 0.1


@pytest.mark.numeric
@pytest.mark.slow
def test_the_paper_network_finds_when_too():
    rng = np.random.default_rng(0)
    config = replaced(
        paper_config(width=32), prototypes={"warm_up_steps": 30}, objective={"ramp_steps": 20}
    )
    torch.manual_seed(0)
    build = NETWORKS["s2net"].build
    network = build(config, feature_dim=FEATURE_DIM, n_classes=N_CLASSES)
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for step in range(100):
        features, truth = (values[::2] for values in planted(rng, n_clips=24, length=24))
        bags = torch.arange(len(features)).unsqueeze(1).expand(-1, features.shape[1])
        batch = BagBatch(features, bags >= 0, bags, truth.amax(dim=1))
        take_step(network, optimizer, batch, step)

    features, truth = (values[::2] for values in planted(np.random.default_rng(1), length=24))
    cas, attention, _ = answers(network.eval(), features, torch.ones(features.shape[:2]))
    acting = cas * attention.unsqueeze(-1)

    assert 1 == network.prototypes.active.item()
    assert acting[truth > 0].median() > 3 * acting[truth == 0].median()


# A few more channels than the small forms have, or nothing can be told from noise.
WIDER = {
    "two-stream": {"hidden_width": 32, "warm_up_steps": 20},
    "sal": {"width": 32, "rank": 8},
    "tsc-net": {"width": 32, "attention_width": 16},
    "sdanet": {"width": 32, "fused_width": 32},
}


@pytest.mark.numeric
@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(WIDER))
def test_the_other_networks_find_when_too(kind):
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    config = small_network_config(kind, "scenes", **WIDER[kind])
    network = NETWORKS[kind].build(config, feature_dim=FEATURE_DIM, n_classes=N_CLASSES)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    features, truth = planted(rng)
    rows = features.reshape(-1, FEATURE_DIM)
    shown = truth.amax(dim=1).repeat_interleave(features.shape[1], dim=0)
    network.fit_input(rows, shown, len(features))
    for step in range(80):
        features, truth = (values[::2] for values in planted(rng, n_clips=32, length=24))
        bags = torch.arange(len(features)).unsqueeze(1).expand(-1, features.shape[1])
        batch = BagBatch(features, bags >= 0, bags, truth.amax(dim=1))
        take_step(network, optimizer, batch, step)

    features, truth = (values[::2] for values in planted(np.random.default_rng(1), length=24))
    cas, attention, _ = answers(network.eval(), features, torch.ones(features.shape[:2]))
    acting = cas * attention.unsqueeze(-1)

    assert set(WIDER) == set(NETWORKS) - {"s2net"}
    assert acting[truth > 0].median() > 3 * acting[truth == 0].median()


@pytest.mark.parametrize("preset", ["light_config", "paper_config"])
def test_a_preset_reads_back_from_its_yaml_form(preset):
    config = {"light_config": light_config, "paper_config": paper_config}[preset]()

    assert config == parse(S2NetConfig, plain(config), "training.yaml: network")


def test_the_presets_have_the_size_they_are_said_to_have():
    sizes = {
        "light": (light_config(), 1024, 6),
        "paper": (paper_config(width=512), 2048, 20),
    }
    counts = {
        name: sum(one.numel() for one in a_preset(*parts).parameters())
        for name, parts in sizes.items()
    }

    assert {"light": 174_356, "paper": 18_639_060} == counts


def a_preset(config, feature_dim, n_classes):
    with torch.device("meta"):  # shapes only: nothing is drawn
        return NETWORKS["s2net"].build(config, feature_dim=feature_dim, n_classes=n_classes)


@pytest.mark.parametrize(
    ("section", "fields", "said"),
    [
        ("trunk", {"kernel": 4}, "kernel is 4"),
        ("trunk", {"modalities": 3}, "modalities is 3"),
        ("trunk", {"whitening_shrink": -0.5}, "whitening_shrink is -0.5, wanted 0 or more"),
        ("interaction", {"windows": [3, 4]}, "windows are"),
        ("interaction", {"max_segments": 0}, "1 or more"),
        ("prototypes", {"fuse": True}, "source is none"),
        ("objective", {"pool_ratio": 0}, "pool_ratio is 0"),
        ("objective", {"activation": "softmax"}, "needs pooling topk"),
        ("objective", {"guide": 0.1}, "guide needs the background"),
        ("objective", {"sparsity": 0.1}, "need actionness"),
        ("objective", {"mutual": 1}, "two modalities"),
        ("objective", {"contrast": 1, "contrast_with": "prototypes"}, "prototypes.source is none"),
        ("interaction", {"level": "feature", "lta": True}, "needs actionness or prototypes"),
        ("interaction", {"level": "feature", "heads": 7}, "a multiple of it"),
    ],
)
def test_parts_that_do_not_go_together_are_refused_in_words(section, fields, said):
    content = plain(light_config())
    content[section] |= fields

    with pytest.raises(BundleError, match=said):
        parse(S2NetConfig, content, "training.yaml: network")


@pytest.mark.parametrize(
    ("form", "section", "fields", "said"),
    [
        ("light", "trunk", {"whitening_dims": 13}, "take 0 .* to 12"),
        ("paper", "trunk", {"whitening_dims": 7}, "cannot be parted"),
    ],
)
def test_features_that_do_not_fit_are_refused_in_words(form, section, fields, said):
    config = replaced(a_config(form), **{section: fields})

    with pytest.raises(DataError, match=said):
        NETWORKS["s2net"].build(config, feature_dim=FEATURE_DIM, n_classes=N_CLASSES)


def test_whitened_snippets_have_unit_variance_and_no_correlation():
    rng = torch.Generator().manual_seed(0)
    mixing = torch.randn(FEATURE_DIM, FEATURE_DIM, generator=rng)
    rows = (torch.randn(500, FEATURE_DIM, generator=rng) @ mixing + 3).double()
    plainly = replaced(a_config("light"), trunk={"whitening_shrink": 0.0})
    network = NETWORKS["s2net"].build(plainly, feature_dim=FEATURE_DIM, n_classes=N_CLASSES)
    network = network.double()

    network.fit_input(rows, untagged(len(rows)), len(rows))
    white = network.trunk.whitening(rows)

    # Sums over 500 rows and 12 features, magnified by how much weaker than the strongest
    # direction the weakest that is kept is, and by the mean's size.
    variances = torch.linalg.eigvalsh(rows.T.cov()).flip(0)
    magnified = float(variances[0] / variances[7] + rows.abs().max() / variances[7].sqrt())
    bound = gamma(500 + 2 * FEATURE_DIM, HALF_ULP["float64"]) * magnified * FEATURE_DIM
    assert bound < 1e-9
    zeros, eye = torch.zeros(8).double(), torch.eye(8).double()
    torch.testing.assert_close(white.mean(dim=0), zeros, rtol=0, atol=bound)
    torch.testing.assert_close(white.T.cov(), eye, rtol=0, atol=bound)


def test_directions_without_variance_are_not_blown_up():
    rows = torch.randn(50, FEATURE_DIM) * (torch.arange(FEATURE_DIM) < 4)
    network = a_network("light")

    network.fit_input(rows, untagged(len(rows)), len(rows))

    assert network.trunk.whitening(rows).abs().max() < 20


def test_whitening_off_leaves_the_features_and_one_snippet_is_too_few():
    config = replaced(a_config("light"), trunk={"whitening_dims": 0})
    network = NETWORKS["s2net"].build(config, feature_dim=FEATURE_DIM, n_classes=N_CLASSES)
    rows = torch.randn(3, FEATURE_DIM)
    network.fit_input(rows, untagged(len(rows)), len(rows))

    assert torch.equal(rows, network.trunk.whitening(rows))
    with pytest.raises(DataError, match="there are 1"):
        a_network("light").fit_input(rows[:1], untagged(1), 1)
