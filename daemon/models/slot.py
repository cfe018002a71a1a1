"""The models that are open: which one is current, and how many cameras still use another one.

A camera takes the current model, works with it, and gives it back when it goes over to the next
one, between two chunks. So two models may be in use for a while. A model that no camera uses any
more can be closed, as then no call of the device uses it either.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from daemon.text import cut
from engine.backends.base import EngineBackend
from engine.cas import Localizer
from engine.features import FeatureExtractor
from engine.spec import ModelSpec

State = Literal["building", "verifying", "serving"]


@dataclass(frozen=True, slots=True, eq=False)
class OpenModel:
    """Backbone and localizer, ready to run from one thread. No two are equal.

    Attributes:
        spec: The model's facts, with the configuration's opening score.
        class_indices: Classes to report; None means all.
        extractor: Turns snippets into features.
        localizer: Turns windows of features into CAS.
        backends: What runs backbone and localizer; ``warm_up`` and ``close`` act on these.
        feature_id: Equal for models whose features can be mixed; see ``StreamSession``.
        choice: Why it runs in its precision, for people; empty: because the configuration says so.
    """

    spec: ModelSpec
    class_indices: frozenset[int] | None
    extractor: FeatureExtractor
    localizer: Localizer
    backends: tuple[EngineBackend, ...] = ()
    feature_id: str = ""
    choice: str = ""

    @property
    def description(self) -> str:
        """Bundle and backend, for people."""
        if not self.backends:
            return self.spec.model_id
        return f"{self.spec.model_id} on {self.backends[0].description}"

    @property
    def why(self) -> str:
        """Why it runs in its precision, for logs."""
        return self.choice or "as configured"

    def warm_up(self) -> None:
        """Make first calls, which compile and allocate."""
        for backend in self.backends:
            backend.warm_up()

    def close(self) -> None:
        """Close both networks and free what they hold on the device."""
        for backend in self.backends:
            backend.close()


class ModelSlot:
    """Holds the current model, and counts who uses which.

    Args:
        model: The model that serves first.

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
        """The model that cameras go over to."""
        return self._current

    @property
    def models(self) -> tuple[OpenModel, ...]:
        """The current model first, then those still in use."""
        others = (model for model in self._n_users if model is not self._current)
        return (self._current, *others)

    def take(self) -> OpenModel:
        """Take the current model; the caller must give it back."""
        self._n_users[self._current] = self._n_users.get(self._current, 0) + 1
        return self._current

    def give_back(self, model: OpenModel) -> None:
        """Give back a model that was taken.

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
        """Make another model the current one."""
        before, self._current = self._current, model
        if before not in self._n_users:
            self.on_unused(before)
        self.on_put()


@dataclass(slots=True)
class ServingStatus:
    """What /readyz tells about the model.

    Attributes:
        serving: The model that serves, described for people; None before the first one is open.
        state: ``building`` or ``verifying`` a candidate; ``serving`` if there is none.
        candidate: The model that is on its way to serve; None if there is none.
        last_error: Why the newest candidate did not take over; None once one did.
    """

    serving: str | None = None
    state: State = "building"
    candidate: str | None = None
    last_error: str | None = None

    def begin(self, candidate: str) -> None:
        """Tell that a candidate is being opened."""
        self.state, self.candidate = "building", candidate

    def verify(self, candidate: str) -> None:
        """Tell that the candidate is open and being verified."""
        self.state, self.candidate = "verifying", candidate

    def served(self, serving: str) -> None:
        """Tell that the candidate took over."""
        self.serving, self.state, self.candidate, self.last_error = serving, "serving", None, None

    def failed(self, error: str) -> None:
        """Tell that the candidate did not take over; the model before it goes on serving."""
        self.state, self.candidate, self.last_error = "serving", None, cut(error)

    def unchanged(self) -> None:
        """Tell that the model that was wanted is the one that serves."""
        self.state, self.candidate, self.last_error = "serving", None, None

    def report(self) -> dict[str, Any]:
        """The status as JSON."""
        return {
            "serving": self.serving,
            "state": self.state,
            "candidate": self.candidate,
            "last_error": self.last_error,
        }
