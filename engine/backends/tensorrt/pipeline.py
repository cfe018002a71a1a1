"""Batches through a GPU, the next one's rows copied while this one is computed.

A *slot* is a place for one batch: page-locked memory, GPU memory, and three events. There are
two; batch k uses slot k mod 2. With one stream for copies and one for the work:

    copies   up 0 | up 1     | down 0 | up 2     | down 1 | ...
    work          | compute 0         | compute 1         | ...

The answers of batch k are fetched after the rows of k + 1 were sent: in one stream, the other
order would make those wait for the work of k. Whoever fills a slot has first waited until the
answers of the batch before it in that slot arrived, and they come after everything else done with
the slot; so nothing in it is ever overwritten while it is in use.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from engine.backends.base import Tensor
from engine.backends.tensorrt.batch_runner import Layout, ProfileRunner
from engine.backends.tensorrt.cuda import (
    Cuda,
    DeviceBuffer,
    Event,
    PinnedBuffer,
    Stream,
    kept,
    suppressed,
)

_N_SLOTS = 2


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a call that go to the GPU together.

    Attributes:
        first: Index of the first row.
        n_rows: How many, at least 1; the rest of the batch repeats the last of them.
        runner: For the batch size they are padded to.
        layout: Its tensors.
    """

    first: int
    n_rows: int
    runner: ProfileRunner
    layout: Layout


@dataclass(frozen=True, slots=True)
class _Place:
    """A tensor's memory in a slot."""

    pinned: PinnedBuffer
    device: DeviceBuffer


@dataclass(frozen=True, slots=True)
class _Slot:
    index: int
    places: Mapping[str, _Place]
    addresses: Mapping[str, int]
    uploaded: Event
    computed: Event
    downloaded: Event


class Pipeline:
    """Two slots and two streams.

    Args:
        cuda: The GPU, current.
        copies: The stream for copies.
        work: The stream for all work of the plan.
        n_bytes: Bytes of each input and output, by name, in the largest batch.
        memory: Frees what is allocated here.
        overlap: Have two batches under way; else one.
    """

    def __init__(
        self,
        cuda: Cuda,
        copies: Stream,
        work: Stream,
        n_bytes: Mapping[str, int],
        memory: ExitStack,
        *,
        overlap: bool,
    ) -> None:
        self._cuda = cuda
        self._copies = copies
        self._work = work
        self._slots = [
            self._slot(index, n_bytes, memory) for index in range(_N_SLOTS if overlap else 1)
        ]

    def run(self, tensors: Mapping[str, Tensor], parts: Sequence[Part]) -> dict[str, Tensor]:
        """Run the parts in turn; tensors and answers are by name, (rows, ...) in one order."""
        n_rows = parts[-1].first + parts[-1].n_rows
        answers: dict[str, Tensor] = {
            placed.name: np.empty((n_rows, *placed.shape[1:]), placed.dtype)
            for placed in parts[0].layout.outputs
        }
        running: deque[tuple[_Slot, Part]] = deque()
        for number, part in enumerate(parts):
            if len(running) == len(self._slots):
                self._collect(*running.popleft(), answers)
            slot = self._slots[number % len(self._slots)]
            self._start(slot, part, tensors)
            running.append((slot, part))
            if len(running) > 1:
                self._fetch(*running[-2])
            if len(self._slots) == 1 or number == len(parts) - 1:
                self._fetch(slot, part)
        while running:
            self._collect(*running.popleft(), answers)
        return answers

    def synchronize(self) -> None:
        """Wait until nothing is under way, if the GPU still answers."""
        suppressed(self._copies.synchronize)
        suppressed(self._work.synchronize)

    def _start(self, slot: _Slot, part: Part, tensors: Mapping[str, Tensor]) -> None:
        """Send a part of the inputs, (rows, ...) each, through the GPU."""
        for placed in part.layout.inputs:
            place = slot.places[placed.name]
            rows = tensors[placed.name][part.first : part.first + part.n_rows]
            batch = placed.view(place.pinned.array)
            batch[: part.n_rows] = rows
            # Padding repeats a row, because a network might divide by zeros.
            batch[part.n_rows :] = rows[-1]
            filled = place.pinned.array[: placed.n_bytes]
            self._cuda.upload(place.device, filled, self._copies)
        slot.uploaded.record(self._copies)
        self._work.wait_for(slot.uploaded)
        part.runner.enqueue(slot.index, slot.addresses, self._work)
        slot.computed.record(self._work)

    def _fetch(self, slot: _Slot, part: Part) -> None:
        self._copies.wait_for(slot.computed)
        for placed in part.layout.outputs:
            place = slot.places[placed.name]
            wanted = place.pinned.array[: placed.n_bytes]
            self._cuda.download(wanted, place.device, self._copies)
        slot.downloaded.record(self._copies)

    def _collect(self, slot: _Slot, part: Part, answers: Mapping[str, Tensor]) -> None:
        """Write a part's rows into the answers, (rows, ...) each, once they have arrived."""
        slot.downloaded.synchronize()
        for placed in part.layout.outputs:
            batch = placed.view(slot.places[placed.name].pinned.array)
            answers[placed.name][part.first : part.first + part.n_rows] = batch[: part.n_rows]

    def _slot(self, index: int, n_bytes: Mapping[str, int], memory: ExitStack) -> _Slot:
        places = {
            name: _Place(
                kept(memory, self._cuda.pin(size)), kept(memory, self._cuda.allocate(size))
            )
            for name, size in n_bytes.items()
        }
        addresses = {name: place.device.address for name, place in places.items()}
        uploaded, computed, downloaded = (kept(memory, self._cuda.event()) for _ in range(3))
        return _Slot(index, places, addresses, uploaded, computed, downloaded)
