"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from daemon.errors import ConfigError

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
        min=0.01,
        max=2,
        help="Score at which an event opens: how much it must stand out from its surroundings.",
        show_default="the bundle's own",
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        help="Precision on the CPU: f32, bf16, int8, or auto, which measures once what is fastest "
        "here and still the same model."
    ),
]
RungOption = Annotated[
    str,
    typer.Option(
        help="How much of the footage is looked at: full, every snippet; half or quarter, every "
        "second or fourth; gated, every fourth in which something moves."
    ),
]
MotionGateOption = Annotated[
    str,
    typer.Option(help="static: what shows nothing new is not looked at; off: it is, as ever."),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(min=1, help="CPU threads of the networks.", show_default="all cores"),
]


def split_labels(labels: str | None) -> tuple[str, ...] | None:
    """The names that an option lists; None, which means all, stays None.

    Raises:
        ConfigError: It names none.
    """
    if labels is None:
        return None
    names = tuple(part.strip() for part in labels.split(",") if part.strip())
    if not names:
        raise ConfigError(f"--labels is {labels!r}, wanted names separated by commas")
    return names


def given(context: typer.Context, *names: str) -> list[str]:
    """Those of the parameters that are on the command line, options as they are written there."""
    parameters = {str(one.name): one for one in context.command.params}
    sources = {name: context.get_parameter_source(name) for name in names}
    return [
        parameters[name].opts[0] if parameters[name].opts[0][0] == "-" else name.upper()
        for name, source in sources.items()
        if source is not None and source.name == "COMMANDLINE"
    ]


def refuse_besides_config(context: typer.Context, *names: str) -> None:
    """Refuse parameters whose values the configuration already gives.

    Raises:
        ConfigError: Names these.
    """
    if seen := given(context, *names):
        raise ConfigError(f"--config says that already; leave out {', '.join(seen)}")
