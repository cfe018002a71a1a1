"""The benchmark of heads measures what it says; how fast they are is no test."""

from pathlib import Path

import pytest

from tests.support.real_parts import torch_imports

with torch_imports():
    import torch

    from training.benchmarks import heads_peers
    from training.benchmarks.heads import head_cost
    from training.benchmarks.heads_peers import PEER, ColaHead, Head, default_heads
    from training.benchmarks.published_costs import published_costs, table
    from training.commands.screen import config_file
    from training.config import read_training_config

pytestmark = [pytest.mark.torch, pytest.mark.openvino]


@pytest.fixture(scope="module")
def cost():
    light = default_heads()[0]
    small = Head(light.name, 128, light.build)  # the least its whitening takes
    return head_cost(
        lengths=(5, 750),
        heads=[small, Head(PEER, 4, ColaHead)],
        passes=1,
        hops=3,
        threads=1,
        live=small,
    )


def test_every_head_is_timed_at_every_length_in_both_runtimes(cost):
    assert [default_heads()[0].name, PEER] == [head.name for head in cost.heads]
    for head in cost.heads:
        assert 2 == len(head.torch_ms) == len(head.openvino_ms)
        assert min(*head.torch_ms, *head.openvino_ms) > 0


def test_the_ratio_is_to_the_peer_of_the_same_run(cost):
    ours, peer = cost.heads

    assert 1.0 == cost.ratio(PEER)
    assert ours.torch_ms[1] / peer.torch_ms[1] == cost.ratio(ours.name)
    assert ours.openvino_ms[0] / peer.openvino_ms[0] == cost.ratio(ours.name, 5, "openvino")


def test_a_live_hop_is_the_default_window(cost):
    assert (24, 320.0, 128) == (
        cost.live.window_snippets,
        cost.live.hop_ms,
        cost.live.feature_dim,
    )
    assert cost.live.total_ms > 0


def test_the_table_keeps_measured_and_cited_apart(cost):
    text = cost.table()

    assert f"of {PEER} at T=750" in text
    assert "% of real time" in text
    assert "CO2-Net" not in text  # cited at three lengths, this table has two
    assert "not comparable" in text


@pytest.mark.parametrize(
    ("head", "n_parameters"),
    # Of CO2-Net without a convolution of kernel 3 over 2048 channels that is never called.
    [("ColaHead", 12_625_920), ("Co2Head", 46_717_975 - 3 * 2048**2 - 2048)],
)
def test_peers_have_the_published_size(head, n_parameters):
    peer = getattr(heads_peers, head)(2048, 20)

    assert n_parameters == sum(parameter.numel() for parameter in peer.parameters())
    scores = peer(torch.ones(1, 7, 2048), torch.ones(1, 7))
    assert ((1, 7, 20), (1, 7), (1, 20)) == (
        tuple(scores.cas.shape),
        tuple(scores.attention.shape),
        tuple(scores.video_scores.shape),
    )


def test_published_forms_are_held_against_published_code_by_one_peer():
    small = {"network.width": 16, "network.rank": 4}
    config = read_training_config(config_file(Path("sal-thumos14")), small)
    (one,) = published_costs(
        {"sal": config, "two-stream": config}, passes=1, threads=1, lengths=(750,), step_length=20
    )
    step, video = "a training step, 10 videos of 320 snippets", "a video of 750 snippets"

    assert ("sal", "SAL") == (one.network, one.counterpart)
    assert {video: 101 / 142, step: 1705 / 2082} == one.published
    assert one.quotients() == {name: one.ours[name] / one.published[name] for name in one.ours}
    row = f"| sal | SAL | 0.2 | {video} | {one.ours[video]:.2f} | 0.71 |"
    assert row in table([one])
    assert f"published: {max(one.quotients().values()):.2f} (goal 1.1)" in table([one])
