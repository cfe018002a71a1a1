"""Bags of one training → its network: the search for a length, one round or two, a student."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from engine.types import FloatArray
from training.config import NetworkChoice, TrainingConfig
from training.learning.batches import Bag
from training.learning.checkpoints import TrainedNetwork
from training.learning.distillation import taught
from training.learning.hard_negatives import hardest_stretches, part
from training.learning.learner import Learner
from training.learning.progress import Progress, TrainingLog
from training.learning.scoring import scored
from training.learning.second_look import click_note, segments_of
from training.learning.stopping import chosen_iterations, held_out, tag_map
from training.networks.base import Network

_PHASES = ("search", "round_1", "round_2", "student")  # their numbers are part of every seed


@dataclass(frozen=True, slots=True)
class Session:
    """What all rounds of one training share.

    Attributes:
        config: How to train.
        states: Folder of what an interrupted training goes on from.
        identity: Digest of all that decides the weights.
        device: Where it is trained.
        log: Gets the losses.
        on_progress: Called after every iteration.
        note: Gets a line for clicks that tell little.
    """

    config: TrainingConfig
    states: Path
    identity: str
    device: torch.device
    log: TrainingLog
    on_progress: Callable[[Progress], None]
    note: Callable[[str], None]


def all_rounds(session: Session, bags: Sequence[Bag], quiet: Sequence[Bag]) -> Network:
    """Search for the length if the rule asks for it, then do one round or two.

    The second round learns from the first one's pseudo labels, if there are to be two, and from
    what the first one found in quiet footage.
    """
    config = session.config
    n_iterations = config.schedule.iterations(len(bags), config.batches.bags)
    if config.stopping.rule == "label_free":
        n_iterations = _searched(session, bags)
    if config.rounds == 1 and not quiet:
        return _round(session, "round_1", config.network, bags, n_iterations)
    first = config.teacher if config.rounds > 1 else config.network
    teacher = _round(session, "round_1", first, bags, n_iterations)
    hard = _hard_negatives(session, teacher, bags, quiet)
    # As many passes over what there is now.
    n_iterations = round(n_iterations * (len(bags) + len(hard)) / len(bags))
    if config.rounds == 1:
        return _round(session, "round_2", config.network, [*bags, *hard], n_iterations)
    labelled = _labelled(session, teacher, [*bags, *hard])
    return _round(session, "round_2", config.network, labelled, n_iterations)


def student_round(
    session: Session,
    teacher: TrainedNetwork,
    class_names: Sequence[str],
    bags: Sequence[Bag],
    quiet: Sequence[Bag],
) -> Network:
    """Do the one round of an online student, on what its teacher finds in whole clips."""
    config = session.config
    columns = [teacher.class_names.index(name) for name in class_names]
    seer = copy.deepcopy(teacher.network).to(session.device)
    shown = [*bags, *_hard_negatives(session, seer, bags, quiet)]
    student, labels, clicks = config.network.config, config.pseudo_labels, config.points
    found = [_found(seer, bag)[:, columns] for bag in shown]
    _note_clicks(session, found, shown)
    labelled = taught(shown, found, student, labels, clicks)
    n_iterations = config.schedule.iterations(len(labelled), config.batches.bags)
    return _round(session, "student", config.network, labelled, n_iterations)


def _hard_negatives(
    session: Session, teacher: Network, bags: Sequence[Bag], quiet: Sequence[Bag]
) -> list[Bag]:
    """Cut the stretches out of quiet footage where the teacher finds most, as long as a clip."""
    curves = [_found(teacher, bag).max(axis=-1) for bag in quiet]
    length = int(np.median([len(bag.features) for bag in bags]))
    n_wanted = round(session.config.hard_negatives.share * len(bags))
    return [
        part(quiet[video], *rows) for video, *rows in hardest_stretches(curves, length, n_wanted)
    ]


def _found(network: Network, bag: Bag) -> FloatArray:
    """What a network finds in a clip: its scores times its attention, float32 (R, C)."""
    scores = scored(network, [bag])
    acting = scores.cas[0, bag.places] * scores.attention[0, bag.places, None]
    return np.asarray(acting.cpu().numpy(), np.float32)


def _searched(session: Session, bags: Sequence[Bag]) -> int:
    """Let the label-free rule choose the length on a part of the bags.

    Returns:
        As many iterations on all bags as make the chosen number of epochs.
    """
    config = session.config
    tags = np.stack([bag.tags for bag in bags])
    apart = held_out(tags, config.stopping.holdout, config.seed)
    judged = [bag for bag, is_out in zip(bags, apart, strict=True) if is_out]
    learned = [bag for bag, is_out in zip(bags, apart, strict=True) if not is_out]
    wanted = tags[apart]
    tag_map(np.zeros_like(wanted), wanted)  # it refuses, before training, what cannot be judged
    n_iterations = config.schedule.iterations(len(learned), config.batches.bags)

    def judge(network: Network) -> float:
        rows = [scored(network, [bag]).video_scores[0].cpu().numpy() for bag in judged]
        return tag_map(np.stack(rows), wanted)

    choice = config.teacher if config.rounds > 1 else config.network
    _round(session, "search", choice, learned, n_iterations, judge)
    chosen = chosen_iterations(session.log.checks("search"), config.stopping.within)
    return max(1, round(chosen * len(bags) / len(learned)))


def _labelled(session: Session, teacher: Network, bags: Sequence[Bag]) -> list[Bag]:
    """Give clips the targets of a second round."""
    found = [scored(teacher, [bag]).cas[0, bag.places].cpu().numpy() for bag in bags]
    labels, clicks = session.config.pseudo_labels, session.config.points
    _note_clicks(session, found, bags)
    return [
        replace(bag, targets=targets)
        for bag, targets in zip(bags, segments_of(found, bags, labels, clicks), strict=True)
    ]


def _note_clicks(session: Session, found: Sequence[FloatArray], bags: Sequence[Bag]) -> None:
    line = click_note(found, bags, session.config.pseudo_labels, session.config.points)
    if line is not None:
        session.note(line)


def _round(
    session: Session,
    phase: str,
    choice: NetworkChoice,
    bags: Sequence[Bag],
    n_iterations: int,
    judge: Callable[[Network], float] | None = None,
) -> Network:
    """Train one network from fresh weights, or go on where it was; give the averaged network."""
    config = session.config
    learner = Learner(
        config,
        choice,
        bags,
        round_number=_PHASES.index(phase),
        name=phase,
        device=session.device,
        identity=session.identity,
    )
    state = session.states / f"{phase}.safetensors"
    step = learner.restore(state)
    session.log.resume(phase, step)
    while step < n_iterations:
        terms = learner.step(step)
        step += 1
        is_last = step == n_iterations
        is_check = judge and (step % config.stopping.check_every == 0 or is_last)
        seen = judge(learner.average) if judge and is_check else None
        is_row = is_last or is_check or step % config.log.every == 0
        losses = {name: float(value) for name, value in terms.items()} if is_row else {}
        progress = Progress(phase, step, n_iterations, losses, seen)
        if is_row:
            session.log.add(progress)
        if is_last or step % config.log.save_every == 0:
            # The log is written first: a state without its rows would leave a hole in the log,
            # while rows without their state are dropped when the training goes on.
            session.log.write()
            learner.save(state, step)
        session.on_progress(progress)
    return learner.average
