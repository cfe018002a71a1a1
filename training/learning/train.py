"""Tagged features → a run folder: checkpoint, configuration, camera means, classes, log.

Every step draws its batch and its dropout from the seed and its own number. A training that was
interrupted therefore goes on exactly as if it had not been. What is kept is the moving average of
the weights. No interval is ever looked at.
"""

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.backends.names import check_name
from engine.errors import DataError
from engine.types import FloatArray
from training.config import UNSHRUNK, UPRIGHT, NetworkChoice, TrainingConfig
from training.learning.batches import (
    Bag,
    bag_of,
    camera_means,
    check_feature_set,
    clip_batch,
    moved,
    training_bags,
)
from training.learning.checkpoints import (
    CHECKPOINT,
    TrainedNetwork,
    load_run,
    read_tensors,
    save_config,
    save_run,
)
from training.learning.distillation import check_teacher, taught
from training.learning.hard_negatives import hardest_stretches, part, silent_records
from training.learning.learner import Learner
from training.learning.progress import LOG, Progress, TrainingLog, plot_log
from training.learning.second_look import click_note, segments_of
from training.learning.stopping import chosen_iterations, held_out, tag_map
from training.networks.base import Network, Scores
from training.records import FeatureSet, VideoRecord

STATES = "state"
DEVICES = ("cpu", "cuda", "auto")
_PHASES = ("search", "round_1", "round_2", "student")  # their numbers are part of every seed


def train(
    config: TrainingConfig,
    feature_set: FeatureSet,
    out: Path,
    *,
    quiet: FeatureSet | None = None,
    teacher: TrainedNetwork | None = None,
    manifest: Mapping[str, Any] | None = None,
    device: str = "auto",
    threads: int | None = None,
    resume: bool = True,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
    note: Callable[[str], None] = lambda _line: None,
) -> TrainedNetwork:
    """Train a network, and leave a run folder.

    Args:
        config: How to train.
        feature_set: The videos; only those whose tags are known are trained on.
        out: The run folder. If it holds a finished training of the same configuration and data,
            that is given back as it is; an interrupted one goes on.
        quiet: Videos in which nothing happens, whatever is known of them. After the first round
            the stretches where the network finds most are clips without a tag in a second one.
        teacher: What an online network learns from, trained on whole clips of these features; it
            then has one round. None: it learns from tags, like any other.
        manifest: The features' own manifest, kept in the folder.
        device: ``cpu``, ``cuda`` or ``auto``.
        threads: CPU threads of torch while it trains; None leaves them. The last bits of the
            weights depend on it.
        resume: False starts anew and writes over what ``out`` holds.
        on_progress: Called after every iteration.
        note: Gets a line for everything that was left out, and for clicks that tell little.

    Raises:
        DataError: There is no such device, the features cannot be trained on, the teacher does
            not fit them, a loss is not finite, or ``out`` holds a training of another
            configuration or other data.
    """
    check_name("device", device, DEVICES, DataError)  # before anything of an earlier run goes
    check_feature_set(feature_set)
    if teacher is not None:
        student = config.network.config
        check_teacher(teacher, student, feature_set, manifest, config.background)
    silent = () if quiet is None else silent_records(quiet, feature_set)
    identity = _identity(config, feature_set, silent, teacher)
    if _claimed(out, identity, resume=resume):
        return load_run(out)
    save_config(config, out)
    known = camera_means((*feature_set.records, *silent))
    if config.background == "none":
        known = {"": np.zeros(feature_set.feature_dim, np.float32)}
    target = _device(device)
    log = TrainingLog(out, tensorboard=config.log.tensorboard)
    session = _Session(config, out, identity, target, log, on_progress, note)
    with _isolated(target, threads):
        bags = training_bags(feature_set, known)
        n_classes = len(feature_set.class_names)
        still = [bag_of(one, known.get(one.camera, known[""]), n_classes) for one in silent]
        network = (
            _rounds(session, bags, still)
            if teacher is None
            else _student(session, teacher, feature_set.class_names, bags, still)
        )
    log.close()
    run = TrainedNetwork(
        network=network.cpu(),
        config=config,
        class_names=feature_set.class_names,
        feature_dim=feature_set.feature_dim,
        grid=feature_set.grid,
        camera_means=known,
        manifest=dict(manifest or {}),
        identity=identity,
    )
    save_run(run, out)
    plot_log(out, note)
    shutil.rmtree(out / STATES)
    return run


def score_video(
    network: Network, record: VideoRecord, camera_mean: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Score a whole video.

    Args:
        network: It is put into evaluation mode.
        record: The video, T rows.
        camera_mean: float32 (D,), its camera's mean.

    Returns:
        cas float32 (T, C) and attention float32 (T,), one row for each row of the record.

    Raises:
        DataError: The video holds no snippet.
    """
    bag = _whole_bag(record, camera_mean)
    scores = _scored(network, [bag])
    return scores.cas[0, bag.places].cpu().numpy(), scores.attention[0, bag.places].cpu().numpy()


def video_scores(network: Network, record: VideoRecord, camera_mean: FloatArray) -> FloatArray:
    """Score a video as a whole, float32 (C,); arguments as of ``score_video``.

    Raises:
        DataError: The video holds no snippet.
    """
    scores = _scored(network, [_whole_bag(record, camera_mean)])
    return np.asarray(scores.video_scores[0].cpu().numpy(), np.float32)


def _whole_bag(record: VideoRecord, camera_mean: FloatArray) -> Bag:
    if not len(record.indices):
        raise DataError(f"{record.name}: holds no whole snippet: leave it out")
    return bag_of(replace(record, tags=None), camera_mean, 0)


@dataclass(frozen=True, slots=True)
class _Session:
    """What all rounds of one training share."""

    config: TrainingConfig
    out: Path
    identity: str
    device: torch.device
    log: TrainingLog
    on_progress: Callable[[Progress], None]
    note: Callable[[str], None]


def _rounds(session: _Session, bags: Sequence[Bag], quiet: Sequence[Bag]) -> Network:
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


def _student(
    session: _Session,
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
    session: _Session, teacher: Network, bags: Sequence[Bag], quiet: Sequence[Bag]
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
    scores = _scored(network, [bag])
    acting = scores.cas[0, bag.places] * scores.attention[0, bag.places, None]
    return np.asarray(acting.cpu().numpy(), np.float32)


def _searched(session: _Session, bags: Sequence[Bag]) -> int:
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
        rows = [_scored(network, [bag]).video_scores[0].cpu().numpy() for bag in judged]
        return tag_map(np.stack(rows), wanted)

    choice = config.teacher if config.rounds > 1 else config.network
    _round(session, "search", choice, learned, n_iterations, judge)
    chosen = chosen_iterations(session.log.checks("search"), config.stopping.within)
    return max(1, round(chosen * len(bags) / len(learned)))


def _labelled(session: _Session, teacher: Network, bags: Sequence[Bag]) -> list[Bag]:
    """Give clips the targets of a second round."""
    found = [_scored(teacher, [bag]).cas[0, bag.places].cpu().numpy() for bag in bags]
    labels, clicks = session.config.pseudo_labels, session.config.points
    _note_clicks(session, found, bags)
    return [
        replace(bag, targets=targets)
        for bag, targets in zip(bags, segments_of(found, bags, labels, clicks), strict=True)
    ]


def _note_clicks(session: _Session, found: Sequence[FloatArray], bags: Sequence[Bag]) -> None:
    line = click_note(found, bags, session.config.pseudo_labels, session.config.points)
    if line is not None:
        session.note(line)


def _round(
    session: _Session,
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
    state = session.out / STATES / f"{phase}.safetensors"
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


def _scored(network: Network, bags: Sequence[Bag]) -> Scores:
    """Score bags, one in a sequence: B is their number."""
    device = next(network.parameters()).device
    batch = moved(clip_batch(bags, 1), device)
    with torch.no_grad():
        return network.eval()(batch.features, batch.valid)


def _identity(
    config: TrainingConfig,
    feature_set: FeatureSet,
    silent: Sequence[VideoRecord],
    teacher: TrainedNetwork | None,
) -> str:
    """Digest all that decides the weights: equal digests mean equal trainings."""
    unused = {"log"} if silent else {"log", "hard_negatives"}
    if not any(record.points for record in feature_set.records):
        unused.add("points")
    decisive = {key: value for key, value in config.content.items() if key not in unused}
    # What does nothing is left out, as in runs of before it was there.
    if trunk := decisive["network"].get("trunk"):
        decisive["network"] = {**decisive["network"], "trunk": _without(trunk, UNSHRUNK)}
    if clicks := decisive.get("points"):
        decisive["points"] = _without(clicks, UPRIGHT)
    digest = hashlib.blake2b(json.dumps(decisive, sort_keys=True).encode(), digest_size=16)
    if teacher is not None:
        digest.update(json.dumps(["teacher", teacher.identity]).encode())
    digest.update(json.dumps(feature_set.class_names).encode())
    for record in (*feature_set.records, *silent):
        digest.update(json.dumps([record.name, record.camera, record.tags]).encode())
        if record.points:
            digest.update(json.dumps([astuple(point) for point in record.points]).encode())
        digest.update(np.ascontiguousarray(record.indices).data)
        digest.update(np.ascontiguousarray(record.features).data)
    return digest.hexdigest()


def _without(section: Mapping[str, Any], idle: Mapping[str, object]) -> dict[str, Any]:
    """Leave out the keys whose values are those of an earlier version."""
    return {key: value for key, value in section.items() if idle.get(key, ...) != value}


def _claimed(out: Path, identity: str, *, resume: bool) -> bool:
    """Make the folder fit to train in; give True if it holds this very training, finished.

    Raises:
        DataError: It holds another training, or cannot be made.
    """
    try:
        (out / STATES).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out} cannot be made: {error.strerror}: choose another --out") from error
    traces = sorted((out / STATES).glob("*.safetensors"))
    traces += [out / CHECKPOINT] if (out / CHECKPOINT).exists() else []
    if resume:
        for path in traces:
            if read_tensors(path)[1].get("identity") != identity:
                raise DataError(
                    f"{path} is of another configuration or other data: "
                    "choose another --out, or start anew without resuming"
                )
    else:
        for path in traces:
            path.unlink()
    if not (resume and traces):
        (out / LOG).unlink(missing_ok=True)
    if resume and (out / CHECKPOINT).exists():
        shutil.rmtree(out / STATES)
        return True
    return False


def _device(name: str) -> torch.device:
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise DataError("device is cuda, but torch sees no GPU: choose cpu or auto")
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")


@contextmanager
def _isolated(device: torch.device, threads: int | None) -> Iterator[None]:
    """Use deterministic algorithms, a random state and threads of our own; put all back after."""
    n_threads = torch.get_num_threads()
    was, was_warning = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    is_gpu = device.type == "cuda"
    if is_gpu:  # cuBLAS is deterministic only with a workspace of its own
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if is_gpu else []):
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        torch.set_num_threads(threads or n_threads)
        try:
            yield
        finally:
            torch.set_num_threads(n_threads)
            torch.use_deterministic_algorithms(was, warn_only=was_warning)
