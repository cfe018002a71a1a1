"""What all commands share: progress bars, notes, and the arguments that several have."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engine.errors import DataError, DeviceError

Features = Annotated[
    Path,
    typer.Option(
        help="Folder of feature files, those of s2net extract or published ones.",
        exists=True,
        show_default=False,
    ),
]
Annotations = Annotated[
    Path | None,
    typer.Option(
        help="File with every action's interval; otherwise annotations.json or gt.json among the "
        "features."
    ),
]
Config = Annotated[
    Path, typer.Option(help="Training configuration, a YAML file as in configs/training.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change one key of the configuration, such as network.interaction.sta=false; "
        "repeatable.",
    ),
]
Threads = Annotated[
    int, typer.Option(min=1, help="CPU threads of torch; small networks are fastest with 1.")
]

DEFAULT_CONFIG = Path("configs/training/s2net-clips.yaml")

err = Console(stderr=True, highlight=False)


def note(line: str) -> None:
    """Write a line for people to stderr, apart from the result."""
    err.print(line, style="dim", markup=False, soft_wrap=True)


@contextmanager
def counting(what: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Show a progress bar.

    Yields:
        A function to call with how much is done and, if that was not known before, the total.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, of=total: bar.update(task, completed=done, total=of)


@contextmanager
def needs_torch() -> Iterator[None]:
    """Say how to install PyTorch, an extra, where it is missing.

    Raises:
        DeviceError: An import inside the block failed.
    """
    try:
        yield
    except ImportError as error:
        raise DeviceError(f"{error}: pip install 's2netd[training]'") from error


def processes_here() -> int:
    """Count the CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def existing(path: Path, what: str) -> Path:
    """Return ``path`` if it is there.

    Raises:
        DataError: It is not there; the message calls it ``what``.
    """
    if not path.exists():
        raise DataError(f"{what} {path}: there is no such file or folder")
    return path
