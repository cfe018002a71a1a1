"""What our networks cost in their published forms beside the published code, by a common peer.

The published code was timed on another machine. It was timed there beside CO2-Net's, whose
layers are re-stated here; so each network is timed in turn with them, pass by pass, and the two
ratios are compared. (CoLA's head would be no such measure: that machine was busy when it was
timed.) A step is whole: the batch, forward, losses, backward, the optimiser and, of ours, the
clipping of gradients and the average of weights. Of the peer's losses there is only one, in its
favour.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy

from training.benchmarks.heads import N_CLASSES, markdown, random_video, torch_call, torch_threads
from training.benchmarks.heads_peers import PUBLISHED_PEERS_MS, TWO_STREAM, Co2Head
from training.config import TrainingConfig, VideoBatches
from training.learning.batches import Bag, Sampler
from training.learning.checkpoints import build_network
from training.learning.learner import Learner
from training.networks.base import Network

LENGTHS = (320, 750, 2000)
GOAL = 1.1
N_VIDEOS, STEP_LENGTH = 10, 320
# A step of 10 videos of 320 snippets, on the same machine as ``PUBLISHED_PEERS_MS``.
PUBLISHED_STEPS_MS: Mapping[str, int] = {
    "CO2-Net": 2082,
    "SAL": 1705,
    "TSC-Net": 11668,
}
PEER = "CO2-Net"
# S2Net's own code is not published; it stands on CO2-Net, and does more.
COUNTERPARTS: Mapping[str, str] = {"s2net": "CO2-Net", "sal": "SAL", "tsc-net": "TSC-Net"}

_STEP = f"a training step, {N_VIDEOS} videos of {STEP_LENGTH} snippets"
_WARM_UP = 1
_LEARNING_RATE = 1e-4


@dataclass(frozen=True, slots=True)
class Comparison:
    """One network's times, each as a multiple of CO2-Net's in the same run.

    Attributes:
        network: Row of ``NETWORKS``.
        counterpart: Whose published code it is held against.
        n_parameters: Number of its parameters.
        ours: Name of what was timed → multiple.
        published: The same, of the published code.
    """

    network: str
    counterpart: str
    n_parameters: int
    ours: Mapping[str, float]
    published: Mapping[str, float]

    def quotients(self) -> dict[str, float]:
        """What was timed → ours by the published; 1.0 costs the same."""
        return {name: self.ours[name] / self.published[name] for name in self.ours}


def published_costs(
    configs: Mapping[str, TrainingConfig],
    *,
    passes: int,
    threads: int,
    lengths: Sequence[int] = LENGTHS,
    step_length: int = STEP_LENGTH,
) -> list[Comparison]:
    """Time each network that published code can be held against, one after the other.

    Args:
        configs: Network → its configuration; those without a counterpart are left out.
        passes: Timed passes of each length, and steps, after one that is not counted.
        threads: CPU threads.
        lengths: Snippets of the videos at test time.
        step_length: Snippets of the videos of a step.
    """
    with torch_threads(threads):
        return [
            _comparison(name, config, passes, lengths, step_length)
            for name, config in configs.items()
            if name in COUNTERPARTS
        ]


def table(comparisons: Sequence[Comparison]) -> str:
    """Write the comparisons for people, in Markdown."""
    rows = [row for comparison in comparisons for row in _rows(comparison)]
    multiples = (f"ours / {PEER}", f"published / {PEER}", "ours / published")
    head = ("network", "published code", "M parameters", "what", *multiples)
    worst = max(max(one.quotients().values()) for one in comparisons if one.counterpart != PEER)
    goal = f"worst of those whose own code is published: {worst:.2f} (goal {GOAL})"
    return "\n".join([*markdown(head, rows), "", goal])


def _test(length: int) -> str:
    return f"a video of {length} snippets"


def _rows(one: Comparison) -> Iterator[tuple[str, ...]]:
    millions = f"{one.n_parameters / 1e6:.1f}"
    for what, quotient in one.quotients().items():
        pair = f"{one.ours[what]:.2f}", f"{one.published[what]:.2f}"
        yield (one.network, one.counterpart, millions, what, *pair, f"{quotient:.2f}")


def _comparison(
    name: str, config: TrainingConfig, passes: int, lengths: Sequence[int], step_length: int
) -> Comparison:
    counterpart = COUNTERPARTS[name]
    peers = zip(LENGTHS, PUBLISHED_PEERS_MS[counterpart], PUBLISHED_PEERS_MS[PEER], strict=True)
    published = {_test(length): theirs / peer for length, theirs, peer in peers}
    published[_STEP] = PUBLISHED_STEPS_MS[counterpart] / PUBLISHED_STEPS_MS[PEER]
    network = build_network(config.network, TWO_STREAM, N_CLASSES).eval()
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    ours = {_test(length): _at_test(network, length, passes) for length in lengths}
    del network  # some are of half a gigabyte, and a step wants five times that
    ours[_STEP] = _multiple(*_steps(config, step_length), passes=passes)
    return Comparison(
        name, counterpart, n_parameters, ours, {what: published[what] for what in ours}
    )


def _at_test(network: Network, length: int, passes: int) -> float:
    given = random_video(TWO_STREAM, length)
    ours, peer = torch_call(network), torch_call(Co2Head(TWO_STREAM, N_CLASSES))
    return _multiple(partial(ours, given), partial(peer, given), passes=passes)


def _multiple(ours: Callable[[], object], peer: Callable[[], object], *, passes: int) -> float:
    """Time both in turn; give the median time of ours by that of the peer."""
    spent_s = np.zeros((_WARM_UP + passes, 2))
    for row in spent_s:
        for column, call in enumerate((ours, peer)):
            began_s = time.perf_counter()
            call()
            row[column] = time.perf_counter() - began_s
    of_ours, of_peer = np.median(spent_s[_WARM_UP:], axis=0).tolist()
    return float(of_ours / of_peer)


def _steps(
    config: TrainingConfig, length: int
) -> tuple[Callable[[], object], Callable[[], object]]:
    """A whole step of ours, and one of the peer's as it is published, on like videos."""
    batches = VideoBatches(videos=N_VIDEOS, length=length, pairs=0)
    draws = np.random.default_rng(0)
    bags = [
        Bag(
            name=str(number),
            features=np.abs(draws.standard_normal((length, TWO_STREAM))).astype(np.float32),
            camera_mean=np.zeros(TWO_STREAM, np.float32),
            places=np.arange(length),
            tags=np.eye(N_CLASSES, dtype=np.float32)[number // 2],
        )
        for number in range(N_VIDEOS)
    ]
    learner = Learner(
        replace(config, batches=batches),
        config.network,
        bags,
        round_number=1,
        name="step",
        device=torch.device("cpu"),
        identity="",
    )
    peer = Co2Head(TWO_STREAM, N_CLASSES)
    optimiser = torch.optim.Adam(peer.parameters(), lr=_LEARNING_RATE)
    sampler = Sampler(bags, batches, [0])

    def peers() -> None:
        batch = sampler.batch(0)
        optimiser.zero_grad()
        scores = peer(batch.features, batch.valid)
        binary_cross_entropy(scores.video_scores, batch.tags).backward()
        optimiser.step()

    return partial(learner.step, 0), peers
