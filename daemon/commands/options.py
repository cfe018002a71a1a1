"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="The daemon's configuration, a YAML file.")
]
BundleOption = Annotated[
    str, typer.Option(help="Which networks: a bundle's folder, or the name of a pulled bundle.")
]
LabelsOption = Annotated[
    str | None,
    typer.Option(
        help='Report only these classes, by name, e.g. "arm wrestling,walking the dog".',
        show_default="all classes",
    ),
]
OpenScoreOption = Annotated[
    float | None,
    typer.Option(
        min=0.01, max=2, help="Score at which an event opens.", show_default="the bundle's own"
    ),
]
PrecisionOption = Annotated[
    str, typer.Option(help="Precision on the CPU: f32, bf16, or auto (bf16 if the CPU has AMX).")
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(min=1, help="CPU threads of the networks.", show_default="all cores"),
]
