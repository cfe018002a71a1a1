"""The JSON Schemas of what other programs read."""

import json
from importlib.resources import files
from typing import Any


def camera_status_schema() -> dict[str, Any]:
    """The JSON Schema of the value of a camera status's record."""
    text = files("daemon").joinpath("schemas/camera-status.v1.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
