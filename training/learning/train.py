"""Tagged features → a run folder: checkpoint, configuration, camera means, classes, log.

Every step draws its batch and its dropout from the seed and its own number. A training that was
interrupted therefore goes on exactly as if it had not been. What is kept is the moving average of
the weights. No interval is ever looked at.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.backends.names import check_name
from engine.errors import DataError
from training.config import UNSHRUNK, UPRIGHT, TrainingConfig
from training.learning.batches import (
    bag_of,
    camera_means,
    check_feature_set,
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
from training.learning.distillation import check_teacher
from training.learning.hard_negatives import silent_records
from training.learning.progress import LOG, Progress, TrainingLog, plot_log
from training.learning.rounds import Session, all_rounds, student_round
from training.records import FeatureSet, VideoRecord

STATES = "state"
DEVICES = ("cpu", "cuda", "auto")


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
    session = Session(config, out / STATES, identity, target, log, on_progress, note)
    with _isolated(target, threads):
        bags = training_bags(feature_set, known)
        n_classes = len(feature_set.class_names)
        still = [bag_of(one, known.get(one.camera, known[""]), n_classes) for one in silent]
        network = (
            all_rounds(session, bags, still)
            if teacher is None
            else student_round(session, teacher, feature_set.class_names, bags, still)
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
