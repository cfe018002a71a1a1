"""Options that several commands have."""

from typing import Annotated

import typer

BundleOption = Annotated[str, typer.Option(help="A bundle folder, or the name of a pulled one.")]
LabelsOption = Annotated[
    str | None,
    typer.Option(help='Report only these classes, e.g. "arm wrestling,walking the dog".'),
]
OpenScoreOption = Annotated[
    float | None, typer.Option(min=0.01, max=2, help="Score at which an event opens.")
]
PrecisionOption = Annotated[
    str, typer.Option(help="f32, bf16, or auto: bf16 where the CPU has AMX.")
]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Backend threads; default all.")]
