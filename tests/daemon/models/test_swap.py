"""Models on their way to serving: opened aside, verified, taken over, given up, closed."""

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from daemon.calls import RunningCalls
from daemon.clock import SystemClock
from daemon.device.requests import BatchPolicy
from daemon.device.thread import Device
from daemon.metrics import Metrics
from daemon.models.choosing import open_model
from daemon.models.opening import GpuSteps, ModelOpener, try_out
from daemon.models.reading import ReadModel, open_read, read_model
from daemon.models.slot import ModelSlot, OpenModel, ServingStatus
from engine.backends import open_backend
from engine.backends.base import EngineBackend, Tensor
from engine.backends.options import OnLog
from engine.errors import BundleError
from tests.support.daemons import LogCapture
from tests.support.model_rig import FakeGpu, a_config, a_rig, is_closed
from tests.support.scripted import a_camera_mean
from tests.support.tiny_bundle import write_tiny_bundle

pytestmark = pytest.mark.openvino


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "a": write_tiny_bundle(folder / "a"),
        "b": write_tiny_bundle(folder / "b", version=2),
        "c": write_tiny_bundle(folder / "c", version=3),
        "nan": write_tiny_bundle(folder / "nan", is_nan=True),
        "inverted": write_tiny_bundle(folder / "inverted", is_inverted=True),
    }


async def test_another_bundle_becomes_current_and_the_old_one_is_closed_once_unused(bundles):
    async with a_rig(a_config(bundles["a"])) as rig:
        first = rig.slot.take()  # as a camera does
        rig.swap.want(a_config(bundles["b"]))
        await rig.until(lambda: rig.slot.current is not first)

        assert "tiny" in rig.slot.current.description
        assert first.spec.model_id != rig.slot.current.spec.model_id
        assert (1, 0) == (rig.count("done"), rig.count("failed"))
        assert rig.slot.current.description == rig.status.report()["serving"]
        assert not is_closed(first)
        rig.slot.give_back(first)
        await rig.until(lambda: bool(rig.logs.named("model.closed")))
        assert is_closed(first)
        assert "" == rig.told[-1]  # nothing is on its way any more
        assert any("verifying" in words for words in rig.told)


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"bundle": "nan"}, "BundleError", "cas hold NaN or infinity"),
        ({"labels": ["reed"]}, "ConfigError", "did you mean 'red'"),
        ({"bundle": "nowhere"}, "BundleError", "no bundle nowhere"),
        ({"backend": "tensorrt", "gpu": 63}, "DeviceError", ""),
    ],
)
async def test_a_candidate_that_fails_leaves_everything_as_it_was(bundles, change, error, reason):
    async with a_rig(a_config(bundles["a"])) as rig:
        before = rig.slot.current
        changed = {**change, "bundle": str(bundles.get(change.get("bundle", "a"), "nowhere"))}
        rig.swap.want(a_config(bundles["a"]).model_copy(update=changed))
        await rig.until(lambda: rig.count("failed") == 1)

        (failed,) = rig.logs.named("model.swap_failed")
        assert reason in str(failed["reason"])
        assert (error in rig.status.last_error) or error == "DeviceError"
        assert ("serving", None) == (rig.status.state, rig.status.candidate)
        assert before is rig.slot.current
        try_out(before)
        # The next good one takes over all the same, and the error is history.
        rig.swap.want(a_config(bundles["b"]))
        await rig.until(lambda: rig.count("done") == 1)
        assert rig.status.last_error is None


async def test_a_model_without_verification_is_taken_as_it_is(bundles):
    async with a_rig(a_config(bundles["a"])) as rig:
        rig.swap.want(a_config(bundles["nan"], verify=False))
        await rig.until(lambda: rig.count("done") == 1)


async def test_every_kind_of_backend_and_bundle_can_take_over(bundles, tmp_path):
    camera = write_tiny_bundle(tmp_path / "camera", camera_mean=a_camera_mean())
    async with a_rig(a_config(bundles["a"])) as rig:
        for number, config in enumerate(
            (a_config(camera), a_config(camera, backend="scripted"), a_config(bundles["a"])), 1
        ):
            rig.swap.want(config)
            await rig.until(
                lambda number=number: rig.count("done") + rig.count("failed") == number
            )

        assert rig.status.last_error is None
        assert 3 == rig.count("done")


async def test_the_newest_wish_wins(bundles):
    async with a_rig(a_config(bundles["a"])) as rig:
        for name in ("b", "nan", "b", "c"):
            rig.swap.want(a_config(bundles[name]))
            await asyncio.sleep(0)
        await rig.until(lambda: rig.count("done") >= 1)

        wanted = read_model(a_config(bundles["c"])).spec.model_id
        assert wanted == rig.slot.current.spec.model_id
        assert (1, 0) == (rig.count("done"), rig.count("failed"))


@pytest.mark.parametrize("after_s", [0, 0.02, 0.1, 0.2, 0.3, 0.5])
async def test_a_wish_given_up_at_any_moment_leaves_nothing_open(bundles, after_s):
    async with a_rig(a_config(bundles["a"])) as rig:
        rig.swap.want(a_config(bundles["b"]))
        await asyncio.sleep(after_s)
        rig.swap.want(a_config(bundles["a"]))
        await rig.until(lambda: bool(rig.logs.named("model.unchanged")) or rig.count("done") == 2)

        wanted = read_model(a_config(bundles["a"])).spec.model_id
        assert wanted == rig.slot.current.spec.model_id


async def test_what_serves_already_is_not_opened_again(bundles):
    async with a_rig(a_config(bundles["a"])) as rig:
        before = rig.slot.current
        rig.swap.want(a_config(bundles["a"], while_building="openvino"))
        await rig.until(lambda: bool(rig.logs.named("model.unchanged")))

        assert before is rig.slot.current


async def test_a_folder_that_holds_another_bundle_by_then_is_another_model(tmp_path):
    place = write_tiny_bundle(tmp_path / "mine")
    async with a_rig(a_config(place)) as rig:
        write_tiny_bundle(place, version=9)
        rig.swap.want(a_config(place))
        await rig.until(lambda: rig.count("done") == 1)

        assert read_model(a_config(place)).spec.model_id == rig.slot.current.spec.model_id


async def test_a_bundle_replaced_while_it_is_opened_does_not_serve(tmp_path):
    place = write_tiny_bundle(tmp_path / "mine")
    read = read_model(a_config(place))
    write_tiny_bundle(place, version=9)

    with pytest.raises(BundleError, match="was replaced while it was being opened"):
        read.check_unchanged()


async def test_a_candidate_is_compared_with_its_bundle_in_f32(bundles):
    """The candidate runs where the daemon's batches run, its reference beside them."""
    config = a_config(bundles["a"])
    metrics, logs = Metrics(), LogCapture()
    device = Device(BatchPolicy(4), metrics, RunningCalls(SystemClock()))
    opener = ModelOpener(device, ServingStatus(), lambda _words: None, logs.logger())
    same, other = open_model(config), open_model(a_config(bundles["nan"]))
    try:
        read = await opener.read(config)
        verification = await opener.compare(read, same)
        assert verification.holds, verification.reasons
        verification = await opener.compare(read, replace(same, backends=other.backends))
        assert not verification.holds
        assert "NaN" in " ".join(verification.reasons)
    finally:
        await opener.discard(same, other)
        opener.close()
        device.close()


async def test_a_plan_is_built_beside_the_batches_of_the_cameras(bundles):
    gpu = FakeGpu(bundles["a"])
    async with a_rig(a_config(bundles["a"]), gpu.steps()) as rig:
        before = rig.slot.current
        rig.swap.want(a_config(bundles["a"], backend="tensorrt"))
        await rig.until(lambda: any("Building: 3 of 1000" in words for words in rig.told))
        assert (before, "building") == (rig.slot.current, rig.status.state)
        await rig.device.run(lambda: try_out(before))  # the device is free all the while
        gpu.may_finish.set()
        await rig.until(lambda: rig.count("done") == 1)

        assert "tensorrt" in rig.status.report()["serving"]
        assert before.spec.model_id == rig.slot.current.spec.model_id
        assert gpu.threads["build"].startswith("model")
        assert gpu.threads["open"].startswith("device")
        said = rig.logs.named("model.runtime_said")
        assert [
            ("info", "of use when one looks for a fault"),
            ("warning", "this GPU is not a real one"),
        ] == [(line["severity"], line["message"]) for line in said]
        assert any("snippet 36 of 36" in words for words in rig.told)


@pytest.mark.parametrize(("one", "sizes"), [(False, (1, 2, 4, 6)), (True, (6,))])
def test_the_configuration_decides_which_shapes_are_built(bundles, monkeypatch, one, sizes):
    asked = []

    def opened(_kind, path, **arguments):
        asked.append(arguments["options"].batch_sizes)
        return open_backend("scripted", path)

    monkeypatch.setattr("daemon.models.reading.open_backend", opened)
    config = a_config(bundles["a"], backend="tensorrt", max_batch=6, one_batch_size=one)
    open_read(read_model(config)).close()
    assert [sizes, sizes] == asked


async def test_a_plan_that_strays_from_the_reference_does_not_serve(bundles):
    gpu = FakeGpu(bundles["inverted"])
    gpu.may_finish.set()
    async with a_rig(a_config(bundles["a"]), gpu.steps()) as rig:
        rig.swap.want(a_config(bundles["a"], backend="tensorrt"))
        await rig.until(lambda: rig.count("failed") == 1)

        assert "strays from" in rig.status.last_error


class OnlySmall:
    """A backend whose kernels for many rows are broken."""

    def __init__(self, backend: EngineBackend, most_rows: int) -> None:
        self._backend = backend
        self._most_rows = most_rows
        self.signature, self.description = backend.signature, backend.description

    def warm_up(self) -> None:
        self._backend.warm_up()

    def run(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        n_rows = len(next(iter(tensors.values())))
        answers = self._backend.run(tensors)
        if n_rows <= self._most_rows:
            return answers
        return {name: np.zeros_like(answer) for name, answer in answers.items()}

    def close(self) -> None:
        self._backend.close()


@pytest.mark.parametrize(
    ("backend", "n_broken", "is_seen"),
    [
        ("tensorrt", 1, True),
        ("tensorrt", 8, True),
        ("tensorrt", 16, True),
        ("tensorrt", 32, True),
        ("openvino", 8, True),
        ("openvino", 16, False),  # cameras wait for a step, and rows are inferred one by one
    ],
)
async def test_a_model_is_tried_with_as_many_rows_as_make_a_difference(
    bundles, backend, n_broken, is_seen
):
    """A plan has kernels of its own for each size of a batch."""
    config = a_config(bundles["a"], max_batch=32)
    metrics, logs = Metrics(), LogCapture()
    device = Device(BatchPolicy(4), metrics, RunningCalls(SystemClock()))
    opener = ModelOpener(device, ServingStatus(), lambda _words: None, logs.logger())
    model = open_model(config)
    backbone, localizer = model.backends
    try:
        read = await opener.read(a_config(bundles["a"], max_batch=32, backend=backend))
        sound = (OnlySmall(backbone, 32), localizer)
        assert (await opener.compare(read, replace(model, backends=sound))).holds
        broken = (OnlySmall(backbone, n_broken - 1), localizer)
        verification = await opener.compare(read, replace(model, backends=broken))
        assert is_seen != verification.holds
    finally:
        await opener.discard(model)
        opener.close()
        device.close()


async def test_a_model_overtaken_while_the_device_opens_it_is_closed(bundles):
    opening, may_open, opened = threading.Event(), threading.Event(), []

    def open_slowly(read: ReadModel, on_log: OnLog) -> OpenModel:
        opening.set()
        may_open.wait(240)
        opened.append(FakeGpu(bundles["a"]).open(read, on_log))
        return opened[0]

    device = Device(BatchPolicy(4), Metrics(), RunningCalls(SystemClock()))
    opener = ModelOpener(
        device,
        ServingStatus(),
        lambda _words: None,
        LogCapture().logger(),
        GpuSteps(lambda *_: None, open_slowly),
    )
    read = await opener.read(a_config(bundles["a"], backend="tensorrt"))
    task = asyncio.create_task(opener.open(read))
    while not opening.is_set():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    may_open.set()
    await opener.settle()
    assert [True] == [is_closed(model) for model in opened]
    opener.close()
    device.close()


async def test_a_plan_nobody_waits_for_is_built_no_further(bundles):
    gpu = FakeGpu(bundles["a"])
    async with a_rig(a_config(bundles["a"]), gpu.steps()) as rig:
        for number in (1, 2, 3):
            rig.swap.want(a_config(bundles["a"], backend="tensorrt"))
            await rig.until(lambda number=number: gpu.n_begun == number)
        rig.swap.want(a_config(bundles["b"]))
        await rig.until(lambda: rig.count("done") == 1)
        assert 3 == gpu.n_given_up

        rig.swap.want(a_config(bundles["a"], backend="tensorrt"))
        await rig.until(lambda: gpu.n_begun == 4)
    # The daemon's end gives it up too.
    assert 4 == gpu.n_given_up
    assert "open" not in gpu.threads


def test_a_model_given_back_once_too_often_is_named(bundles):
    slot = ModelSlot(open_model(a_config(bundles["a"])))
    slot.give_back(slot.take())

    with pytest.raises(ValueError, match="given back once too often"):
        slot.give_back(slot.current)
    slot.current.close()
