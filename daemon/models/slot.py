"""Models that are open: which one serves now, and who still uses the one before.

A camera takes the model that is current, works with it, and gives it back when it goes over to
the next one, between two chunks. So for a moment two models are in use, and one that nobody uses
any more can be closed: no camera, and so no call of the device, holds it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from engine.backends.base import EngineBackend
from engine.cas import Localizer
from engine.features import FeatureExtractor
from engine.spec import ModelSpec

State = Literal["building", "verifying", "serving"]


@dataclass(frozen=True, slots=True, eq=False)
class OpenModel:
    """Backbone and localizer, ready to run from one thread. Two are never equal.

    Attributes:
        spec: The model, with the configuration's opening score.
        class_indices: Classes to report; None means all.
        extractor: Snippets → features.
        localizer: Windows → CAS.
        backends: Backbone and localizer: what ``warm_up`` and ``close`` work on.
        feature_id: Names what makes its features; see ``StreamSession``.
    """

    spec: ModelSpec
    class_indices: frozenset[int] | None
    extractor: FeatureExtractor
    localizer: Localizer
    backends: tuple[EngineBackend, ...] = ()
    feature_id: str = ""

    @property
    def description(self) -> str:
        """Bundle and backend, for people."""
        if not self.backends:
            return self.spec.model_id
        return f"{self.spec.model_id} on {self.backends[0].description}"

    def warm_up(self) -> None:
        """First calls, which compile and allocate."""
        for backend in self.backends:
            backend.warm_up()

    def close(self) -> None:
        """Free the device."""
        for backend in self.backends:
            backend.close()


class ModelSlot:
    """The one place where the current model is looked up.

    Args:
        model: What serves first.

    Attributes:
        on_unused: Told of a model that is not current and that nobody uses: close it.
        on_put: Told that another model is current.
    """

    def __init__(self, model: OpenModel) -> None:
        self.on_unused: Callable[[OpenModel], None] = lambda _model: None
        self.on_put: Callable[[], None] = lambda: None
        self._current = model
        self._n_users: dict[OpenModel, int] = {}

    @property
    def current(self) -> OpenModel:
        """What cameras go over to."""
        return self._current

    @property
    def models(self) -> tuple[OpenModel, ...]:
        """The current model first, then those still in use."""
        others = (model for model in self._n_users if model is not self._current)
        return (self._current, *others)

    def take(self) -> OpenModel:
        """The current model, to be given back."""
        self._n_users[self._current] = self._n_users.get(self._current, 0) + 1
        return self._current

    def give_back(self, model: OpenModel) -> None:
        """One user less.

        Raises:
            ValueError: Nobody took it.
        """
        if model not in self._n_users:
            raise ValueError(f"{model.description} was given back once too often")
        self._n_users[model] -= 1
        if self._n_users[model] == 0:
            del self._n_users[model]
            if model is not self._current:
                self.on_unused(model)

    def put(self, model: OpenModel) -> None:
        """Let another model be the current one."""
        before, self._current = self._current, model
        if before not in self._n_users:
            self.on_unused(before)
        self.on_put()


@dataclass(slots=True)
class ServingStatus:
    """What /readyz says of the model.

    Attributes:
        serving: What serves, for people; None before the first model is open.
        state: What is being done: ``serving`` where no other model is on its way.
        candidate: What is on its way.
        last_error: Why the newest candidate did not take over; None once one did.
    """

    serving: str | None = None
    state: State = "building"
    candidate: str | None = None
    last_error: str | None = None

    def begin(self, candidate: str) -> None:
        """A candidate is being opened."""
        self.state, self.candidate = "building", candidate

    def verify(self, candidate: str) -> None:
        """It is open and being verified."""
        self.state, self.candidate = "verifying", candidate

    def served(self, serving: str) -> None:
        """It took over."""
        self.serving, self.state, self.candidate, self.last_error = serving, "serving", None, None

    def failed(self, error: str) -> None:
        """It did not take over; the one before serves on."""
        self.state, self.candidate, self.last_error = "serving", None, error

    def unchanged(self) -> None:
        """What was wanted is what serves."""
        self.state, self.candidate, self.last_error = "serving", None, None

    def report(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "serving": self.serving,
            "state": self.state,
            "candidate": self.candidate,
            "last_error": self.last_error,
        }
