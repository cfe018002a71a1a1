"""What all commands share: progress bars, notes, and the arguments that several have."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
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
    Path,
    typer.Option(
        help="Training configuration: a YAML file, or the name of one of configs/training."
    ),
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

DEFAULT_CONFIG = Path("s2net-clips")
_CONFIGS = Path(__file__).parent.parent / "configs"  # configs/training, in the wheel too

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
def counting_each(what: str, total: int) -> Iterator[Callable[[object], None]]:
    """Show a progress bar.

    Yields:
        A function to call once for each thing that is done, with its name.
    """
    with counting(what, total) as done:
        numbers = count(1)
        yield lambda _name: done(next(numbers))


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


def config_file(path: Path, what: str = "--config") -> Path:
    """Return the file of a configuration: the path if it is there, or the shipped one of its name.

    Args:
        path: A file, or a name.
        what: The option that names it, for the message.

    Raises:
        DataError: There is neither; the message lists the shipped ones.
    """
    if path.exists():
        return path
    name = path.name if path.suffix == ".yaml" else f"{path.name}.yaml"
    is_name = path.parent in {Path(), Path("configs/training")}
    if is_name and (_CONFIGS / name).exists():
        return _CONFIGS / name
    shipped = ", ".join(sorted(file.stem for file in _CONFIGS.glob("*.yaml")))
    raise DataError(f"{what} {path}: there is no such file; shipped are {shipped}")
