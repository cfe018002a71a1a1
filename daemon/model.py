"""A bundle's networks, opened: what run, localize, demo and bench all start with."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from daemon.config import ModelConfig
from daemon.errors import ConfigError
from engine.backends import open_backend
from engine.backends.base import EngineBackend
from engine.bundle import ModelBundle, resolve_bundle
from engine.cas import BackendLocalizer
from engine.features import BackendFeatureExtractor
from engine.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class OpenModel:
    """Backbone and localizer, ready to run from one thread.

    Attributes:
        spec: The model, with the configuration's opening score.
        labels: Classes to report; None means all.
        extractor: Snippets → features.
        localizer: Windows → CAS.
        backends: What ``warm_up`` and ``close`` work on.
    """

    spec: ModelSpec
    labels: frozenset[int] | None
    extractor: BackendFeatureExtractor
    localizer: BackendLocalizer
    backends: tuple[EngineBackend, ...]

    @property
    def description(self) -> str:
        """Bundle and backend, for people."""
        return f"{self.spec.model_id} on {self.backends[0].description}"

    def warm_up(self) -> None:
        """First calls, which compile and allocate."""
        for backend in self.backends:
            backend.warm_up()

    def close(self) -> None:
        """Free the device."""
        for backend in self.backends:
            backend.close()


def open_model(config: ModelConfig) -> OpenModel:
    """Read, verify and open a bundle.

    Raises:
        BundleError: The bundle is missing, damaged or foreign.
        ConfigError: A label is not one of its classes.
        DeviceError: The backend could not be opened.
    """
    bundle = ModelBundle.load(resolve_bundle(config.bundle))
    spec = bundle.spec
    if config.open_score is not None:
        spec = spec.with_open_score(config.open_score)
    labels = label_indices(config.labels, spec.class_names)
    backbone, localizer = (
        open_backend(config.backend, path, precision=config.precision, threads=config.threads)
        for path in (bundle.backbone_path, bundle.localizer_path)
    )
    return OpenModel(
        spec,
        labels,
        BackendFeatureExtractor(backbone, spec.feature_dim),
        BackendLocalizer(localizer),
        (backbone, localizer),
    )


def label_indices(
    labels: Sequence[str] | None, class_names: Sequence[str]
) -> frozenset[int] | None:
    """Class indices of names.

    Raises:
        ConfigError: Names the unknown label and the classes most like it.
    """
    if labels is None:
        return None
    unknown = [label for label in labels if label not in class_names]
    if unknown:
        like = difflib.get_close_matches(unknown[0], class_names, n=3, cutoff=0.4)
        hint = f"; did you mean {', '.join(map(repr, like))}?" if like else ""
        raise ConfigError(
            f"labels: {unknown[0]!r} is none of the model's {len(class_names)} classes{hint}"
        )
    return frozenset(class_names.index(label) for label in labels)


def check_model(config: ModelConfig) -> str:
    """Read and verify a bundle and its labels without opening a device; describe it.

    Raises:
        BundleError: The bundle is missing, damaged or foreign.
        ConfigError: A label is not one of its classes.
    """
    bundle = ModelBundle.load(resolve_bundle(config.bundle))
    labels = label_indices(config.labels, bundle.spec.class_names)
    n_labels = len(labels) if labels is not None else len(bundle.spec.class_names)
    return f"{bundle.spec.model_id}, {n_labels} of {len(bundle.spec.class_names)} classes"
