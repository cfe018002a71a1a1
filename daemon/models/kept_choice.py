"""What was measured of precisions, kept for the next start: a file each in ``$XDG_CACHE_HOME``.

It holds for one CPU, OpenVINO, bundle and number of threads (its key), so that is its name. What
is damaged or of another key is said, and measured anew.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from daemon.models.choice import Choice, choose
from engine.files.cache import cache_dir
from engine.files.whole import write_whole

Key = Mapping[str, str | int | bool]

_MAX_BYTES = 1 << 16


class _File(BaseModel):
    """The file: its key, and what was measured."""

    model_config = ConfigDict(strict=True, extra="forbid")

    key: dict[str, str | int | bool]
    milliseconds: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    refused: dict[str, str]


def choice_path(key: Key) -> Path:
    """Where a choice is kept; it may not exist yet."""
    digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()
    return cache_dir() / "precisions" / f"{digest[:24]}.json"


def read_choice(
    key: Key, precisions: Sequence[str], on_note: Callable[[str], None]
) -> Choice | None:
    """The choice that was kept; None: there is none, or none that can be used.

    Args:
        key: What it depends on.
        precisions: Those there are to choose from, the most exact first.
        on_note: Told why what lies there cannot be used.
    """
    path = choice_path(key)
    try:
        with path.open("rb") as file:
            kept = _File.model_validate_json(file.read(_MAX_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        on_note(f"{path} is damaged ({_first_line(error)}): precisions are measured anew")
        return None
    if kept.key != dict(key):
        on_note(f"{path} was measured of something else: precisions are measured anew")
        return None
    timed = [name for name in precisions if name in kept.milliseconds]
    chosen = choose({name: kept.milliseconds[name] for name in timed}, kept.refused)
    if {*kept.milliseconds, *kept.refused} != set(precisions) or chosen is None:
        on_note(f"{path} is of other precisions: they are measured anew")
        return None
    return Choice(chosen, {n: kept.milliseconds[n] for n in timed}, kept.refused, is_kept=True)


def keep_choice(key: Key, choice: Choice, on_note: Callable[[str], None]) -> None:
    """Keep a choice; where that cannot be done, ``on_note`` is told why."""
    path = choice_path(key)
    content = _File(
        key=dict(key), milliseconds=dict(choice.milliseconds), refused=dict(choice.refused)
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = f".{path.name}.{os.getpid()}"
        write_whole(path, content.model_dump_json(indent=1).encode(), unfinished=unfinished)
    except OSError as error:
        on_note(
            f"{path} cannot be written ({error.strerror}): precisions are measured again at the "
            "next start; XDG_CACHE_HOME chooses another cache"
        )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
