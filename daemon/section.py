"""What every section of the configuration is: frozen, and without unknown keys."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator


class Section(BaseModel):
    """Some keys of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*")
    @classmethod
    def _can_be_a_path(cls, value: Any) -> Any:
        if isinstance(value, Path) and "\0" in str(value):
            raise ValueError(f"{str(value)!r:.300} holds a zero byte, which no path does")
        return value
