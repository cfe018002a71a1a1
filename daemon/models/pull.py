"""`s2netd models pull`, with a progress bar."""

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from engine.published import models


def pull_with_progress(name: str, console: Console) -> Path:
    """Fetch, verify and convert a model, unless it is there; return its bundle's folder.

    Raises:
        WeightsError: The model could not be fetched; says what to do.
    """
    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=console) as progress:

        def on_progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done, total=total)

        path = models.pull(name, on_progress)
        for task in progress.tasks:
            progress.update(task.id, total=1, completed=1)
        return path
