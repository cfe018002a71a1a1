"""What ``s2net train --online`` asks for: whose student it is, and how far it looks ahead."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import DataError
from training.commands.screen import existing

if TYPE_CHECKING:
    from training.learning.checkpoints import TrainedNetwork

Teachers = Annotated[
    list[Path] | None,
    typer.Option(
        "--teacher",
        help="With --online: folder of a run of the same features, whose scores of whole clips "
        "are learned from; of several, the mean of their scores.",
    ),
]
LookAhead = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="With --online: how many hops after its end an event is final; otherwise 2, or what "
        "the configuration of a student says.",
    ),
]


def check_asked(*, online: bool, teachers: list[Path] | None, look_ahead: int | None) -> None:
    """Refuse options that do not belong together, and teachers that are not there.

    Raises:
        DataError: The message says what to give.
    """
    if online and not teachers:
        raise DataError("--online needs a teacher: train one first, then --teacher RUN")
    if not online and (teachers or look_ahead is not None):
        raise DataError("--teacher and --look-ahead are of an online student: give --online too")
    for folder in teachers or ():
        existing(folder / "checkpoint.safetensors", "--teacher")


def teacher_of(folders: list[Path]) -> "TrainedNetwork":
    """The run of one folder, or the mean of several.

    Raises:
        DataError: One is damaged, or they do not fit each other.
    """
    from training.export.ensemble import ensemble_of  # noqa: PLC0415 - needs torch
    from training.learning.checkpoints import load_run  # noqa: PLC0415

    members = [load_run(folder) for folder in folders]
    return members[0] if len(members) == 1 else ensemble_of(members)
