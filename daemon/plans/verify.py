"""`s2netd engine verify`: tells whether a backend, precision or bundle may replace a reference."""

import tempfile
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from daemon.config import parse_model
from daemon.demo.scene import render_scene
from daemon.models.choosing import Telling, settled
from daemon.models.reading import read_model
from engine.backends import open_backend
from engine.backends.base import EngineBackend
from engine.backends.names import check_backend
from engine.backends.options import BackendOptions
from engine.bundle.forms import in_precision
from engine.bundle.model_bundle import ModelBundle, resolve_bundle
from engine.bundle.reference import reference_of
from engine.errors import S2netdError
from engine.spec import ModelSpec
from engine.verification.footage import PROCEDURAL_SNIPPETS, GoldenSet, of_videos, procedural
from engine.verification.verifier import (
    Networks,
    Verification,
    Verifier,
    check_alike,
    sizes_to_try,
)

SCENE_SEED = 5
SCENE_S = 50.0


class NotAlikeError(S2netdError):
    """The candidate differs from the reference beyond the tolerance; the process exits 1."""


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """See `s2netd engine verify --help`."""

    bundle: str
    candidate_bundle: str | None = None
    backend: str = "openvino"
    precision: str = "f32"
    reference_backend: str = "openvino"
    reference_precision: str = "f32"
    videos: tuple[Path, ...] = ()
    seconds: float | None = None
    seed: int = SCENE_SEED
    threads: int | None = None
    max_batch: int = 8

    def __post_init__(self) -> None:
        check_backend(self.backend, self.precision, options=("--backend", "--precision"))
        check_backend(
            self.reference_backend,
            self.reference_precision,
            options=("--reference-backend", "--reference-precision"),
        )


def run_verify(options: VerifyOptions, console: Console) -> Verification:
    """Open both sides, let them answer for the same footage, and compare their answers.

    Args:
        options: What to compare, and on which footage.
        console: Shows the progress.

    Raises:
        BundleError: A bundle is missing or damaged, or the two are not about the same.
        DeviceError: A backend is missing or failed.
        UnreadableVideoError: A video cannot be read.
    """
    names = (options.bundle, options.candidate_bundle or options.bundle)
    folders = [resolve_bundle(name) for name in names]  # both are there before one is read
    reference = candidate = ModelBundle.load(folders[0])
    if options.candidate_bundle is not None:
        candidate = ModelBundle.load(folders[1])
    candidate, precision = _settled(
        candidate, names[1], options.backend, options.precision, options, console
    )
    if options.candidate_bundle is None and reference.card.precision != "f32":
        reference = reference_of(candidate)
    reference, reference_precision = _settled(
        reference,
        names[0],
        options.reference_backend,
        options.reference_precision,
        options,
        console,
    )
    check_alike(reference.spec, candidate.spec)  # before minutes are spent on plans
    with ExitStack() as stack:
        golden = _golden(options, reference.spec, stack, console)
        verifier = Verifier(
            _open(
                reference,
                options.reference_backend,
                reference_precision,
                options,
                stack,
                console,
            ),
            _open(candidate, options.backend, precision, options, stack, console),
            golden,
            reference.spec,
            # The candidate's tolerance comes first, for the candidate is what would serve.
            candidate.tolerance or reference.tolerance,
            candidate_spec=candidate.spec,
            batch_sizes=sizes_to_try(options.backend, options.max_batch),
        )
        _watch(verifier, console)
        return verifier.result()


def _settled(
    bundle: ModelBundle,
    name: str,
    backend: str,
    precision: str,
    options: VerifyOptions,
    console: Console,
) -> tuple[ModelBundle, str]:
    """The bundle or its form that OpenVINO is to run, and in which arithmetic; see ``settled``."""
    if backend != "openvino":
        return bundle, precision
    if precision == "auto":
        plain = {"bundle": name, "threads": options.threads, "max_batch": options.max_batch}

        def note(words: str) -> None:
            console.print(words, markup=False, highlight=False, soft_wrap=True)

        with console.status(f"choosing a precision for {name}"):
            read = settled(read_model(parse_model(plain)), Telling(note))
        note(f"precision {read.choice}")
        precision = read.config.precision
    return in_precision(bundle, precision)


def _watch(verifier: Verifier, console: Console) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    is_plain = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=is_plain) as progress:
        task = progress.add_task("comparing", total=verifier.n_snippets or None)
        for step in verifier.steps():
            step.run()
            progress.update(task, completed=verifier.n_done)


def _golden(
    options: VerifyOptions, spec: ModelSpec, stack: ExitStack, console: Console
) -> GoldenSet:
    """The footage that both sides are shown; files made for it are deleted with the stack."""

    def note(what: str) -> None:
        console.print(what, markup=False)

    if options.videos:
        return of_videos(options.videos, spec, seconds=options.seconds, on_note=note)
    sizes = sizes_to_try(options.backend, options.max_batch)
    drawn = procedural(spec, max(PROCEDURAL_SNIPPETS, sum(sizes)))
    if find_spec("cv2") is None:
        note("no OpenCV, so no scene is drawn: pip install 's2netd[scenes]', or give a --video")
        return drawn
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    seconds = options.seconds or SCENE_S
    path = folder / "scene.mp4"
    scene = render_scene(path, options.seed, None, seconds, console)
    path = path.rename(folder / f"{scene.camera}.mp4")  # a clip's name is its camera's
    about = f"{scene.title}, {seconds:g} s"
    clips = (*of_videos([path], spec).clips, *drawn.clips)
    return GoldenSet(f"{about}, and {drawn.about}", clips)


def _open(
    bundle: ModelBundle,
    backend: str,
    precision: str,
    options: VerifyOptions,
    stack: ExitStack,
    console: Console,
) -> Networks:
    """Open both networks of a bundle, after building their plans if need be.

    They are closed with the stack.
    """

    def on_log(severity: str, message: str) -> None:
        if severity in ("error", "warning"):
            console.print(message, markup=False, highlight=False)

    doing = f"opening {bundle.name} on {backend}"
    n_window = bundle.spec.window.window_snippets
    with console.status(doing) as status:
        given = BackendOptions(
            max_batch=options.max_batch,
            length=(n_window, n_window, n_window),
            on_log=on_log,
            on_progress=lambda phase, done, total: status.update(
                f"{doing}: {phase} {done} of {total}"
            ),
        )

        def opened(path: Path) -> EngineBackend:
            network = open_backend(
                backend, path, precision=precision, threads=options.threads, options=given
            )
            return stack.enter_context(closing(network))

        return Networks(opened(bundle.backbone_path), opened(bundle.localizer_path))
