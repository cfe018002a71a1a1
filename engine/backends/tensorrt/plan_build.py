"""ONNX → plan: what TensorRT compiles a network to, for one GPU and a few shapes.

Building takes seconds to minutes and holds the GPU meanwhile. Where a plan is kept is no matter
of this file (``plan_cache``), nor how it is run.
"""

import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from engine.backends.profiles import Profiles, Shape, ShapeProfile
from engine.backends.tensorrt.library import TensorRt
from engine.backends.tensorrt.log import OnLog, listening
from engine.errors import BundleError, DeviceError

OnProgress = Callable[[str, int, int], None]  # phase, steps done, steps there are

# What TensorRT may take as scratch memory while it tries kernels, and while one runs.
WORKSPACE_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class BuiltPlan:
    """What a build leaves.

    Attributes:
        plan: For ``Runtime.deserialize_cuda_engine``.
        timing_cache: What was measured of kernels, for the next build on this GPU; None where
            TensorRT keeps none.
    """

    plan: bytes
    timing_cache: bytes | None


def build_plan(
    trt: TensorRt,
    onnx: bytes,
    profiles: Profiles,
    *,
    workspace_bytes: int = WORKSPACE_BYTES,
    timing_cache: bytes | None = None,
    on_log: OnLog = lambda _severity, _message: None,
    on_progress: OnProgress = lambda _phase, _done, _total: None,
) -> BuiltPlan:
    """Compile a network.

    Args:
        trt: The TensorRT to do it.
        onnx: The network; its own types are the precision.
        profiles: At least one.
        workspace_bytes: Most scratch memory a kernel may ask for.
        timing_cache: Of an earlier build with the same TensorRT on the same GPU; a damaged or
            foreign one is ignored.
        on_log: Told what TensorRT says.
        on_progress: Told how far each phase is. What it or ``on_log`` raises ends the build.

    Raises:
        BundleError: The file is no ONNX network that TensorRT can run, or lacks these inputs.
        DeviceError: There is no GPU and this TensorRT needs one, or the build failed.
    """
    listener = _Listener(on_log, on_progress)
    try:
        with listening(trt.module, listener.logged) as logger, listener.keeping_ctrl_c():
            return _built(trt, onnx, profiles, workspace_bytes, timing_cache, listener, logger)
    except BaseException as error:
        # Its frames would keep the builder alive until somebody drops the error, or until it is
        # collected as garbage in the middle of another build, which may never end then.
        traceback.clear_frames(error.__traceback__)
        raise


def _built(
    trt: TensorRt,
    onnx: bytes,
    profiles: Profiles,
    workspace_bytes: int,
    timing_cache: bytes | None,
    listener: "_Listener",
    logger: Any,
) -> BuiltPlan:
    try:
        builder = trt.module.Builder(logger)
    except (TypeError, RuntimeError) as error:  # pybind's way to say that there is none
        raise DeviceError(
            f"{trt} cannot build here: {listener.reason(str(error))}; it builds plans on the GPU "
            "that will run them"
        ) from error
    # The weights still point into the parser: it must outlive the build.
    network, _parser = _parsed(trt, builder, logger, onnx, listener)
    config = _configured(trt, builder, network, profiles, workspace_bytes, listener)
    config.progress_monitor = _monitor(trt.module, listener)
    timings = _timings(trt, config, timing_cache)
    plan = builder.build_serialized_network(network, config)
    listener.re_raise()
    if plan is None:
        raise DeviceError(
            f"{trt} could not build the plan: {listener.reason()}; "
            "s2netd engine build --verbose tells more"
        )
    return BuiltPlan(bytes(plan), None if timings is None else bytes(timings.serialize()))


class _Listener:
    """Keeps what must not cross into TensorRT: an exception raised in a call from it is lost.

    Args:
        on_log: As of ``build_plan``.
        on_progress: As of ``build_plan``.
    """

    def __init__(self, on_log: OnLog, on_progress: OnProgress) -> None:
        self._on_log = on_log
        self._on_progress = on_progress
        self._raised: BaseException | None = None
        self._errors: list[str] = []
        self._n_steps: dict[str, int] = {}

    def logged(self, severity: str, message: str) -> None:
        if severity in ("internal_error", "error"):
            self._errors.append(message)
        self._call(lambda: self._on_log(severity, message))

    def started(self, phase: str, n_steps: int) -> None:
        self._n_steps[phase] = n_steps
        self._call(lambda: self._on_progress(phase, 0, n_steps))

    def stepped(self, phase: str, step: int) -> bool:
        """A step is done, counted from 0; gives whether to go on."""
        total = self._n_steps.get(phase, 0)
        self._call(lambda: self._on_progress(phase, min(step + 1, total), total))
        return self._raised is None

    def finished(self, phase: str) -> None:
        total = self._n_steps.pop(phase, 0)
        self._call(lambda: self._on_progress(phase, total, total))

    def reason(self, otherwise: str = "it gives no reason") -> str:
        """The first error, in one line; those after it tend to be its echoes."""
        return " ".join(self._errors[0].split()) if self._errors else otherwise

    @contextmanager
    def keeping_ctrl_c(self) -> Iterator[None]:
        """Keep Ctrl-C too, which Python would raise in whatever call from TensorRT comes next."""
        usual = signal.default_int_handler
        is_usual = signal.getsignal(signal.SIGINT) is usual
        if not is_usual or threading.current_thread() is not threading.main_thread():
            yield
            return
        signal.signal(signal.SIGINT, lambda _number, _frame: self._keep(KeyboardInterrupt()))
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, usual)
        self.re_raise()

    def re_raise(self) -> None:
        if self._raised is not None:
            raise self._raised

    def _call(self, callback: Callable[[], None]) -> None:
        if self._raised is not None:
            return
        try:
            callback()
        except BaseException as error:  # noqa: BLE001 - raised again after the build
            self._keep(error)

    def _keep(self, error: BaseException) -> None:
        self._raised = self._raised or error


def _monitor(module: Any, listener: _Listener) -> Any:
    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, _parent: str | None, n_steps: int) -> None:
            listener.started(phase, n_steps)

        def step_complete(self, phase: str, step: int) -> bool:
            return listener.stepped(phase, step)

        def phase_finish(self, phase: str) -> None:
            listener.finished(phase)

    return Monitor()


def _parsed(
    trt: TensorRt, builder: Any, logger: Any, onnx: bytes, listener: _Listener
) -> tuple[Any, Any]:
    network = builder.create_network(trt.network_flags)
    parser = trt.module.OnnxParser(network, logger)
    is_parsed = parser.parse(onnx)
    listener.re_raise()
    if not is_parsed:
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        raise BundleError(f"{trt} cannot read the network: {_parser_reason(errors, listener)}")
    if not network.num_inputs or not network.num_outputs:  # it takes much for an empty network
        raise BundleError(f"{trt} cannot read the network: it has no inputs or no outputs")
    return network, parser


def _parser_reason(errors: list[Any], listener: _Listener) -> str:
    if not errors:
        return listener.reason()
    first = errors[0]
    operator, name = first.node_operator(), first.node_name()
    where = f"{operator} node {name!r}: " if operator or name else ""
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where}{' '.join(first.desc().split())}{more}"


def _configured(
    trt: TensorRt,
    builder: Any,
    network: Any,
    profiles: Profiles,
    workspace_bytes: int,
    listener: _Listener,
) -> Any:
    module = trt.module
    config = builder.create_builder_config()
    config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, workspace_bytes)
    # On by default: ten bits of mantissa where the network says f32. A faster plan is one of an
    # f16 or bf16 network.
    config.clear_flag(module.BuilderFlag.TF32)
    flag = trt.user_allocation_flag
    if flag is not None:
        config.set_flag(flag)
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    for profile in profiles:
        _check_profile({entry.name: tuple(entry.shape) for entry in inputs}, profile)
        _add_profile(builder, config, profile, listener)
    return config


def _check_profile(inputs: dict[str, Shape], profile: ShapeProfile) -> None:
    """Hold a profile to the network's own shapes, in which -1 is free."""
    wanted = {shapes.name: shapes for shapes in profile.inputs}
    if set(inputs) != set(wanted):
        raise BundleError(f"the network's inputs are {sorted(inputs)}, wanted {sorted(wanted)}")
    for name, shape in inputs.items():
        bounds = (wanted[name].min, wanted[name].max)
        if not all(
            len(bound) == len(shape)
            and all(seen in (-1, want) for seen, want in zip(shape, bound, strict=True))
            for bound in bounds
        ):
            raise BundleError(f'the network\'s input "{name}" is {shape}, wanted {bounds}')


def _add_profile(builder: Any, config: Any, profile: ShapeProfile, listener: _Listener) -> None:
    plain = builder.create_optimization_profile()
    try:
        for shapes in profile.inputs:
            plain.set_shape(shapes.name, shapes.min, shapes.opt, shapes.max)
        is_valid = config.add_optimization_profile(plain) >= 0
    except (ValueError, RuntimeError) as error:
        raise BundleError(f"the network does not take {profile}: {error}") from error
    if not is_valid:
        raise BundleError(f"the network does not take {profile}: {listener.reason()}")


def _timings(trt: TensorRt, config: Any, known: bytes | None) -> Any:
    """The build's timing cache, which starts from ``known`` if that fits; None: there is none."""
    if not trt.has_timing_cache:
        return None
    timings = config.create_timing_cache(known or b"")
    if timings is None or not config.set_timing_cache(timings, ignore_mismatch=False):
        timings = config.create_timing_cache(b"")
        config.set_timing_cache(timings, ignore_mismatch=False)
    return timings
