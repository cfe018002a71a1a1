"""`s2net`: the trainer's commands. Training itself is not here yet; feature extraction is."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from engine.errors import DeviceError, S2netdError

app = typer.Typer(
    name="s2net",
    help="From recordings to feature files, made exactly as the daemon makes features.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point; an expected error is one line and exit code 1."""
    try:
        app()
    except S2netdError as error:
        sys.stderr.write(f"s2net: {error}\n")
        sys.exit(1)


@app.callback()
def _root() -> None:
    pass


@app.command()
def extract(
    videos: Annotated[list[Path], typer.Argument(help="Video files.")],
    out: Annotated[Path, typer.Option(help="Folder for the feature files.")] = Path("features"),
    bundle: Annotated[str, typer.Option(help="Whose backbone.")] = "kinetics400",
    precision: Annotated[str, typer.Option(help="f32, bf16 or auto.")] = "f32",
) -> None:
    """Write one feature file a video; finished ones are kept, so it can be interrupted.

    s2net extract clips/*.mp4 --out features
    """
    from engine.backends import open_backend  # noqa: PLC0415 - opened by this command only
    from engine.bundle import ModelBundle, resolve_bundle  # noqa: PLC0415
    from engine.features import BackendFeatureExtractor  # noqa: PLC0415
    from engine.frames import probe_video  # noqa: PLC0415
    from training.extract import extract_videos  # noqa: PLC0415

    model = ModelBundle.load(resolve_bundle(bundle))
    backend = open_backend("openvino", model.backbone_path, precision=precision, threads=None)
    extractor = BackendFeatureExtractor(backend, model.spec.feature_dim)
    try:
        with Progress(console=Console(stderr=True)) as progress:
            tasks = {
                path: progress.add_task(path.name, total=probe_video(path).duration_us)
                for path in videos
            }
            written = extract_videos(
                videos,
                model,
                extractor,
                out,
                lambda path, time_us: progress.update(tasks[path], completed=time_us),
            )
    finally:
        backend.close()
    typer.echo(f"{len(written)} feature file(s) in {out}")


@app.command()
def bench(
    bundle: Annotated[str, typer.Option(help="Whose backbone.")] = "kinetics400",
    seconds: Annotated[float, typer.Option(min=1, help="Length of each measurement.")] = 10,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of both.")] = None,
) -> None:
    """Time one backbone in OpenVINO f32 and in torch fp32, in one run, and compare the answers.

    s2net bench --seconds 20
    """
    try:
        from training.bench import compare_runtimes  # noqa: PLC0415 - needs torch
    except ImportError as error:
        raise DeviceError(f"{error}: pip install 's2netd[training]'") from error
    typer.echo(compare_runtimes(bundle, seconds, threads))


if __name__ == "__main__":
    main()
