"""One network in training: its steps, the moving average of its weights, its resumable state."""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from engine.errors import DataError
from engine.types import FloatArray
from training.config import NetworkChoice, TrainingConfig
from training.learning.batches import Bag, Sampler, moved
from training.learning.checkpoints import (
    build_network,
    load_tensors,
    read_tensors,
    tensors_of,
    write_tensors,
)
from training.networks.base import Network, Scores
from training.networks.point_loss import point_loss

_MAX_INPUT_ROWS = 40_000  # enough to fit a whitening of 2 048 features, and 320 MB
_AVERAGE_WARM_UP = 10


class Learner:
    """A network, its optimiser and the average of its weights.

    Args:
        config: How it trains.
        choice: Which network.
        bags: What it learns from.
        round_number: Part of every seed, so that no two rounds draw alike.
        name: Name of the round, for messages.
        device: Where it trains.
        identity: Digest of the configuration and data, kept with the state.

    Attributes:
        network: The network that is being trained.
        average: A copy with the moving average of its weights, in evaluation mode.
    """

    def __init__(
        self,
        config: TrainingConfig,
        choice: NetworkChoice,
        bags: Sequence[Bag],
        *,
        round_number: int,
        name: str,
        device: torch.device,
        identity: str,
    ) -> None:
        self._config, self._device = config, device
        self._name, self._identity = name, identity
        self._seed = (config.seed, round_number)
        torch.manual_seed(_mixed(*self._seed, 0))
        network = build_network(choice, bags[0].features.shape[1], len(bags[0].tags))
        rows, tags = _input_rows(bags)
        network.fit_input(torch.from_numpy(rows), torch.from_numpy(tags), len(bags))
        self.network = network.to(self._device)
        self.average = copy.deepcopy(self.network).eval()
        self._sampler = Sampler(bags, config.batches, self._seed)
        settings = config.optimiser
        self._optimiser = torch.optim.Adam(
            self.network.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,  # one pass over weights that may be hundreds of megabytes, instead of six
        )

    def step(self, number: int) -> dict[str, torch.Tensor]:
        """Do one iteration, counted from 0; give the weighted losses and their total.

        Returns:
            Name → scalar tensor ().

        Raises:
            DataError: The scores or the loss are not finite.
        """
        torch.manual_seed(_mixed(*self._seed, number + 1))
        batch = moved(self._sampler.batch(number), self._device)
        settings = self._config.optimiser
        is_mixed = settings.mixed_precision and self._device.type == "cuda"
        self.network.train()
        self._optimiser.zero_grad()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=is_mixed):
            scores = self.network(batch.features, batch.valid)
        # Losses are in full precision, because logarithms of bf16 probabilities move in jumps.
        scores = _in_f32(scores) if is_mixed else scores
        self._require_finite(scores.cas.sum(), "sum of scores", number)
        terms = self.network.losses(scores, batch, number)
        clicks = self._config.points
        if batch.points is not None and clicks.weight:
            terms["point"] = clicks.weight * point_loss(
                scores.cas, batch.points, batch.bags, clicks.focus
            )
        total = torch.stack(list(terms.values())).sum()
        self._require_finite(total, "loss", number)
        total.backward()
        if settings.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip_norm)
        self._optimiser.step()
        with torch.no_grad():
            self.network.after_step(scores, batch, number)
            _update_average(self.average, self.network, settings.average_decay, number)
        return {"total": total.detach(), **{name: term.detach() for name, term in terms.items()}}

    def _require_finite(self, value: torch.Tensor, what: str, number: int) -> None:
        """Refuse a scalar () that is not finite."""
        if not bool(torch.isfinite(value)):
            raise DataError(
                f"{self._name}: the {what} is {float(value.detach())} at iteration {number + 1}: "
                "lower optimiser.learning_rate or set optimiser.clip_norm, then train again"
            )

    def save(self, path: Path, step: int) -> None:
        """Write everything that ``restore`` needs to go on after ``step`` iterations."""
        path.parent.mkdir(exist_ok=True)
        tensors = tensors_of(self.network, "network.") | tensors_of(self.average, "average.")
        for number, entries in self._optimiser.state_dict()["state"].items():
            for name, tensor in entries.items():
                tensors[f"adam.{number}.{name}"] = tensor.cpu().numpy().copy()
        write_tensors(path, tensors, {"identity": self._identity, "step": str(step)})

    def restore(self, path: Path) -> int:
        """Take a saved state; give how many iterations are done, 0 without such a file.

        Raises:
            DataError: The state is damaged, or is another network's.
        """
        if not path.exists():
            return 0
        tensors, metadata = read_tensors(path)
        load_tensors(self.network, tensors, path, "network.")
        load_tensors(self.average, tensors, path, "average.")
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, array in tensors.items():
            if key.startswith("adam."):
                _, number, name = key.split(".")
                state.setdefault(int(number), {})[name] = torch.from_numpy(array)
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": state, "param_groups": groups})
        return int(metadata["step"])


def _update_average(average: Network, network: Network, decay: float, number: int) -> None:
    """Do ``average += (1 - d) (weights - average)`` with d = min(decay, (1 + n) / (10 + n)).

    Buffers (whitening, prototypes) are averages already and are copied. The slow rise of d keeps
    the random first weights out of the average of a short training. Source: TensorFlow's
    ExponentialMovingAverage with ``num_updates``.
    """
    kept = min(decay, (1 + number) / (_AVERAGE_WARM_UP + number))
    pairs = zip(average.parameters(), network.parameters(), strict=True)
    for mean, weight in pairs:
        mean.lerp_(weight, 1 - kept)
    for old, new in zip(average.buffers(), network.buffers(), strict=True):
        old.copy_(new)


def _in_f32(scores: Scores) -> Scores:
    parts = {
        name: part.float() if part.is_floating_point() else part
        for name, part in scores.parts.items()
    }
    return Scores(scores.cas.float(), scores.attention.float(), scores.video_scores.float(), parts)


def _input_rows(bags: Sequence[Bag]) -> tuple[FloatArray, FloatArray]:
    """Stack the training snippets minus their camera means, and the tags of each one's bag.

    They are evenly thinned to about ``_MAX_INPUT_ROWS`` if there are more.

    Returns:
        float32 (N, D) and float32 (N, C).
    """
    n_rows = sum(len(bag.features) for bag in bags)
    every = max(1, -(-n_rows // _MAX_INPUT_ROWS))
    rows = [bag.features[::every] - bag.camera_mean for bag in bags]
    tags = [np.repeat(bag.tags[None], len(own), 0) for bag, own in zip(bags, rows, strict=True)]
    return np.concatenate(rows), np.concatenate(tags)


def _mixed(*numbers: int) -> int:
    """Mix several numbers into one seed; unlike with a sum, other numbers give another seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
