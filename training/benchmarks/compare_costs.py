"""What networks cost at test time: parameters, arithmetic, milliseconds of a video and a hop."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from training.benchmarks.heads import N_CLASSES, head_cost, live_hop_cost
from training.benchmarks.heads_peers import Head
from training.config import training_config
from training.networks import NETWORKS
from training.networks.base import Network

_FLOP_LENGTH = 750


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network costs at test time, whatever it learned from.

    Attributes:
        network: Row of ``NETWORKS``.
        n_parameters: Number of its parameters.
        gflop: Arithmetic of a video of 750 snippets, in 1e9 operations.
        torch_ms: Milliseconds of a video in torch, for each of ``LENGTHS``.
        openvino_ms: The same in OpenVINO f32.
        hop_ms: Milliseconds of the network in one hop of a live camera; what the tracker takes
            depends on the scores, not on the network.
    """

    network: str
    n_parameters: int
    gflop: float
    torch_ms: tuple[float, ...]
    openvino_ms: tuple[float, ...]
    hop_ms: float


def costs(
    contents: Mapping[str, Mapping[str, Any]], feature_dim: int, *, passes: int, threads: int
) -> list[Cost]:
    """Time every network in turn, in one run, on videos of ``LENGTHS`` snippets, and live.

    Args:
        contents: Network → YAML values of its configuration.
        feature_dim: D.
        passes: Timed passes of each.
        threads: CPU threads of both runtimes.
    """
    heads = [Head(name, feature_dim, _builder(content)) for name, content in contents.items()]
    timed = head_cost(heads=heads, passes=passes, threads=threads, hops=1, live=heads[0]).heads
    rows = []
    with TemporaryDirectory() as folder:
        for head, timing in zip(heads, timed, strict=True):
            hop = live_hop_cost(head, Path(folder), 200, threads)
            rows.append(
                Cost(
                    head.name,
                    timing.n_parameters,
                    _gflop(head),
                    timing.torch_ms,
                    timing.openvino_ms,
                    hop.localize_ms,
                )
            )
    return rows


def _builder(content: Mapping[str, Any]) -> Callable[[int, int], Network]:
    choice = training_config(content, "comparison").network

    def build(feature_dim: int, n_classes: int) -> Network:
        entry = NETWORKS[choice.kind]
        return entry.build(choice.config, feature_dim=feature_dim, n_classes=n_classes)

    return build


def _gflop(head: Head) -> float:
    network = head.build(head.feature_dim, N_CLASSES).eval()
    features, valid = torch.zeros(1, _FLOP_LENGTH, head.feature_dim), torch.ones(1, _FLOP_LENGTH)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(features, valid)
    return float(counter.get_total_flops()) / 1e9
