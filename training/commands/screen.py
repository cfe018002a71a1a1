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
    Path, typer.Option(help="Folder of feature files.", exists=True, show_default=False)
]
Annotations = Annotated[
    Path | None,
    typer.Option(help="Every action's interval; otherwise annotations.json or gt.json there."),
]
Config = Annotated[Path, typer.Option(help="Training configuration (configs/training).")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one key: network.interaction.sta=false; repeatable."),
]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads of torch; small networks want 1.")]

DEFAULT_CONFIG = Path("configs/training/s2net-clips.yaml")

err = Console(stderr=True, highlight=False)


def note(line: str) -> None:
    """A line for people, apart from the result."""
    err.print(line, style="dim", markup=False, soft_wrap=True)


@contextmanager
def counting(what: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """A progress bar; what it gives is told how much is done and, if only now known, of what."""
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
    """PyTorch is an extra: without it, the fix in one line."""
    try:
        yield
    except ImportError as error:
        raise DeviceError(f"{error}: pip install 's2netd[training]'") from error


def processes_here() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0))


def existing(path: Path, what: str) -> Path:
    """``path``, if it is there.

    Raises:
        DataError: It is not.
    """
    if not path.exists():
        raise DataError(f"{what} {path}: there is no such file or folder")
    return path
