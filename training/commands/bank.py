"""The command that makes a bank of semantics: build-bank."""

from pathlib import Path
from typing import Annotated

import typer

from training.commands.screen import Changes, Features, config_file, needs_torch, note

DEFAULT_CONFIG = Path("tsc-net-scenes")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(build_bank)


def build_bank(
    features: Features,
    out: Annotated[Path, typer.Option(help="File for the bank; it must not be there yet.")],
    tags: Annotated[
        Path | None,
        typer.Option(
            "--tags",
            "--annotations",
            help="What happens in each video, as for s2net train; otherwise tags.csv or gt.json "
            "among the features.",
        ),
    ] = None,
    config: Annotated[
        Path,
        typer.Option(help="Training configuration: which videos, and whether camera means count."),
    ] = DEFAULT_CONFIG,
    changes: Changes = None,
    rows: Annotated[
        int,
        typer.Option(min=0, help="Vectors of the bank; 0 for one a class and one for the rest."),
    ] = 0,
    snippets: Annotated[int, typer.Option(min=1, help="Snippets drawn of each video.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of draws and clusters.")] = 0,
) -> None:
    """Cluster what all training videos look like, for TSC-Net to start from.

    Without a file, TSC-Net makes its bank of the training's snippets itself; a file serves where
    several trainings shall start from one bank, or from more videos than they train on.

    s2net build-bank --features features --out bank.npy
    """
    with needs_torch():
        from training.learning.bank import build_bank as built  # noqa: PLC0415 - needs torch
        from training.networks.semantics_bank import check_new, write_bank  # noqa: PLC0415
    from training.config import parse_override, read_training_config  # noqa: PLC0415
    from training.data import training_set  # noqa: PLC0415

    overrides = dict(map(parse_override, changes or ()))
    chosen = read_training_config(config_file(config), overrides)
    check_new(out)
    videos = training_set(chosen.data, features, tags, note)
    vectors = built(chosen, videos, n_vectors=rows, snippets_a_video=snippets, seed=seed)
    write_bank(vectors, out)
    n_vectors, width = vectors.shape
    use = f"--set network.bank={out}" + (f" --set network.bank_rows={rows}" if rows else "")
    typer.echo(f"bank: {out}, {n_vectors} x {width}; next: s2net train {use} ...")
