"""``precision: auto`` → the precision to take on this machine, measured once and kept.

Each candidate is called a few times, in turns, so that other work on the machine slows all of them
alike; the least time of each counts, as other work only adds to it. Then the one to be chosen is
verified. If it strays from its reference, it is left out, and the next one is looked at.
"""

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

from daemon.config import ModelConfig
from daemon.models.choice import EXACTNESS, Choice, choose
from daemon.models.kept_choice import Key, keep_choice, read_choice
from daemon.models.reading import (
    OpenModel,
    ReadModel,
    must_be_compared,
    open_read,
    read_model,
    reference_read,
)
from engine.backends import open_backend
from engine.backends.names import ARITHMETICS
from engine.backends.rates import random_question
from engine.bundle.forms import int8_form_of
from engine.errors import BundleError, DeviceError, S2netdError
from engine.verification.footage import PROCEDURAL_SNIPPETS, procedural
from engine.verification.verifier import Networks, sizes_to_try, verify

N_TURNS = 7

# Part of the key: another number measures everything anew.
_MEASURED_AS = 1

Words = Callable[[str], None]


def _unheard(_words: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Telling:
    """Who hears what while a precision is chosen.

    Attributes:
        note: Told what somebody may want to know: a precision that is left out, a kept choice
            that cannot be used.
        step: Told how far it is. An error that it raises ends the choosing.
    """

    note: Words = _unheard
    step: Words = _unheard


def open_model(config: ModelConfig, telling: Telling = Telling()) -> OpenModel:
    """Read a bundle, choose its precision if that is ``auto``, and open it.

    Raises:
        BundleError: The bundle is missing, damaged or foreign, or strays from its reference.
        ConfigError: A name in `labels` is none of its classes.
        DeviceError: The backend could not be opened.
    """
    return open_read(settled(read_model(config), telling))


def settled(
    read: ReadModel,
    telling: Telling = Telling(),
    clock_s: Callable[[], float] = time.perf_counter,
) -> ReadModel:
    """The model in the precision that it is to be run in; ``auto`` of OpenVINO is chosen here.

    Args:
        read: The model.
        telling: Who hears what.
        clock_s: A clock that never goes back.

    Raises:
        BundleError: No precision is admitted, or f32 cannot be run.
        DeviceError: OpenVINO is missing or failed in f32.
    """
    if read.config.backend != "openvino" or read.config.precision != "auto":
        return read
    refused: dict[str, str] = {}
    candidates = _candidates(read, refused)
    is_measured = False
    if len(candidates) == 1:
        choice = Choice(next(iter(candidates)), {}, refused, is_kept=False)
    else:
        key = _key(candidates, read)
        kept = read_choice(key, list(candidates), telling.note)
        is_measured = kept is None
        choice = kept or _measured(candidates, telling, clock_s, key)
    choice = replace(choice, refused={**refused, **choice.refused})
    for name, why in choice.refused.items():
        telling.note(f"{read.spec.model_id}: {name} is left out: {why}")
    is_compared = is_measured and read.config.verify
    return replace(candidates[choice.precision], choice=choice.text, is_compared=is_compared)


def _candidates(read: ReadModel, refused: dict[str, str]) -> dict[str, ReadModel]:
    """The model in each precision that can be tried here, the most exact first."""
    if read.bundle.card.precision == "int8":
        return {"int8": read.in_precision("int8")}
    from engine.backends.openvino.backend import has_bf16  # noqa: PLC0415 - heavy

    names = list(ARITHMETICS if has_bf16() else ARITHMETICS[:1])
    try:
        if read.bundle.card.precision == "f32" and int8_form_of(read.bundle) is not None:
            names.append("int8")
    except BundleError as error:
        refused["int8"] = str(error)
    return {name: read.in_precision(name) for name in EXACTNESS if name in names}


def _key(candidates: Mapping[str, ReadModel], read: ReadModel) -> Key:
    """All that the choice depends on, by name."""
    from engine.backends.openvino.backend import openvino_version, this_cpu  # noqa: PLC0415 - heavy

    cpu, config, grid = this_cpu(), read.config, read.spec.grid
    side_px = read.spec.geometry.crop_px
    judged = f"{read.spec.tracker} {sorted(read.class_indices or ())} {read.bundle.tolerance}"
    return {
        "measured_as": _MEASURED_AS,
        "cpu": cpu.name,
        "cpu_flags": hashlib.sha256(" ".join(sorted(cpu.flags)).encode()).hexdigest(),
        "openvino": openvino_version(),
        "threads": config.threads or len(os.sched_getaffinity(0)),
        "bundle": read.bundle.digest,
        "snippet": f"{grid.snippet_frames}x{side_px}x{side_px}",
        "judged_by": hashlib.sha256(judged.encode()).hexdigest(),
        "is_verified": config.verify,
        **{name: one.runs.backbone_sha256 for name, one in candidates.items()},
    }


def _measured(
    candidates: Mapping[str, ReadModel],
    telling: Telling,
    clock_s: Callable[[], float],
    key: Key,
) -> Choice:
    """What is chosen now; kept, unless a failure that may pass has a part in it."""
    milliseconds, failures = _timed(candidates, telling, clock_s)
    while (chosen := choose(milliseconds, failures)) is not None:
        why_not = _why_not(candidates[chosen], telling)
        if why_not is None:
            refused = {name: str(error) for name, error in failures.items()}
            choice = Choice(chosen, milliseconds, refused, is_kept=False)
            if not any(isinstance(error, DeviceError) for error in failures.values()):
                keep_choice(key, choice, telling.note)
            return choice
        failures[chosen] = why_not
    raise BundleError(
        "no precision is admitted: "
        + "; ".join(f"{name}: {why}" for name, why in failures.items())
    )


def _timed(
    candidates: Mapping[str, ReadModel], telling: Telling, clock_s: Callable[[], float]
) -> tuple[dict[str, float], dict[str, S2netdError]]:
    """Milliseconds of a snippet by precision, and why others cannot be run."""
    calls: dict[str, Callable[[], object]] = {}
    failures: dict[str, S2netdError] = {}
    with ExitStack() as stack:
        for name, read in candidates.items():
            telling.step(f"opening {name}")
            try:
                calls[name] = _a_call(read, stack)
            except (BundleError, DeviceError) as error:
                if name == EXACTNESS[0]:  # then nothing can be said of the others either
                    raise
                failures[name] = error
        return least_ms(calls, telling, clock_s), failures


def _a_call(read: ReadModel, stack: ExitStack) -> Callable[[], object]:
    """A call of the backbone with one snippet, made once already; closed with the stack."""
    path, threads = read.runs.backbone_path, read.config.threads
    opened = open_backend("openvino", path, precision=read.arithmetic, threads=threads)
    backend = stack.enter_context(closing(opened))
    question = random_question(backend.signature, 1, 1)
    backend.run(question)
    return lambda: backend.run(question)


def least_ms(
    calls: Mapping[str, Callable[[], object]], telling: Telling, clock_s: Callable[[], float]
) -> dict[str, float]:
    """Milliseconds of the fastest of some calls, by name; they are called in turns."""
    least_s = dict.fromkeys(calls, float("inf"))
    for turn in range(N_TURNS):
        telling.step(f"timing {', '.join(calls)}: turn {turn + 1} of {N_TURNS}")
        for name, call in calls.items():
            started_s = clock_s()
            call()
            least_s[name] = min(least_s[name], clock_s() - started_s)
    return {name: seconds * 1e3 for name, seconds in least_s.items()}


def _why_not(read: ReadModel, telling: Telling) -> S2netdError | None:
    """Why a candidate may not serve; None: it may."""
    if not read.config.verify:
        return None
    name, sizes = read.config.precision, sizes_to_try("openvino", read.config.max_batch)
    with ExitStack() as stack:
        try:
            model = stack.enter_context(closing(open_read(read)))
            if not must_be_compared(model.backends):
                return None
            reference = stack.enter_context(closing(open_read(reference_read(read))))
            found = verify(
                Networks(*reference.backends),
                Networks(*model.backends),
                procedural(read.spec, max(PROCEDURAL_SNIPPETS, sum(sizes))),
                read.spec,
                read.bundle.tolerance,
                lambda done, n: telling.step(f"verifying {name}: snippet {done} of {n}"),
                class_indices=read.class_indices,
                batch_sizes=sizes,
            )
        except (BundleError, DeviceError) as error:
            return error
    return None if found.holds else BundleError("; ".join(found.reasons))
