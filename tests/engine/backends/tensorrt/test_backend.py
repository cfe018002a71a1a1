"""The TensorRT backend over a fake GPU that does things as late, and as mixed up, as it may."""

import random
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.backends import open_backend
from engine.backends.base import Signature, Tensor, TensorSpec
from engine.backends.options import BackendOptions
from engine.backends.profiles import profiles_for
from engine.backends.tensorrt.backend import TensorRtBackend
from engine.backends.tensorrt.cuda import CudaFault, Shape
from engine.backends.tensorrt.cuda_pycuda import open_pycuda
from engine.backends.tensorrt.opening import Toolkit, open_recipe, open_tensorrt
from engine.backends.tensorrt.plan_cache import Obtained
from engine.backends.tensorrt.plan_recipe import PlanRecipe
from engine.errors import BundleError, DeviceError
from tests.support.fake_cuda import MIB, FakeGpu, Fault, MisuseError, lazily, mixed_up
from tests.support.fake_plan import FakePlan, Program
from tests.support.fake_tensorrt import FAKE, FakeTensorRt, fake_plan, numpy_program
from tests.support.tiny_bundle import backbone, localizer

SIGNATURE = Signature(
    (
        TensorSpec("features", (None, None, 3), "float32"),
        TensorSpec("valid", (None, None), "bool"),
        TensorSpec("camera", (None, 2), "uint8"),
    ),
    (
        TensorSpec("cas", (None, None, 3), "float16"),
        TensorSpec("best", (None,), "int64"),
    ),
)
OPTIONS = BackendOptions(max_batch=4, length=(1, 3, 6))


def answer(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A row's answer is of that row alone, and differs from row to row."""
    masked = tensors["features"] * tensors["valid"][..., None]
    cas = masked.astype(np.float16)
    best = masked.sum(axis=(1, 2)).astype(np.int64) * 1000 + tensors["camera"].sum(
        axis=1, dtype=np.int64
    )
    return {"cas": cas, "best": best}


def rows(n_rows: int, length: int = 3, seed: int = 0) -> dict[str, Tensor]:
    rng = np.random.default_rng(seed)
    return {
        "features": rng.uniform(0, 99, (n_rows, length, 3)).astype(np.float32),
        "valid": rng.integers(0, 2, (n_rows, length)).astype(bool),
        "camera": rng.integers(0, 256, (n_rows, 2), np.uint8),
    }


def opened(
    gpu: FakeGpu,
    options: BackendOptions = OPTIONS,
    run: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = answer,
    **changes: int,
) -> TensorRtBackend:
    program = replace(numpy_program(SIGNATURE, run, len(options.batch_sizes)), **changes)
    return running(gpu, program, options)


def running(gpu: FakeGpu, program: Program, options: BackendOptions = OPTIONS) -> TensorRtBackend:
    """A program, as if its plan had been in the cache."""
    profiles = profiles_for(SIGNATURE, batch_sizes=options.batch_sizes, length=options.length)
    kept = Obtained(b"plan", is_from_cache=True, build_s=0.0)
    kit = Toolkit(FAKE, gpu.open, lambda *_: kept, lambda *_: FakePlan(gpu, program))
    return open_recipe(PlanRecipe(b"", SIGNATURE, "f32", profiles), options, kit)


def is_right(backend: TensorRtBackend, question: dict[str, Tensor]) -> bool:
    seen, wanted = backend.run(question), answer(question)
    return all(np.array_equal(seen[name], wanted[name]) for name in wanted)


@pytest.mark.slow
@given(
    st.randoms(use_true_random=False),
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(1, 13), st.integers(1, 6)), min_size=1, max_size=6),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=100)
def test_in_whatever_order_the_gpu_does_things_the_answers_are_right(
    whims: random.Random,
    max_batch: int,
    calls: list[tuple[int, int]],
    graphs: bool,  # noqa: FBT001
    overlap: bool,  # noqa: FBT001
) -> None:
    gpu = FakeGpu(whims.randrange)
    options = replace(OPTIONS, max_batch=max_batch, cuda_graphs=graphs, overlap=overlap)
    backend = opened(gpu, options)
    for seed, (n_rows, length) in enumerate(calls):
        assert is_right(backend, rows(n_rows, length, seed))
    backend.close()
    assert not +gpu.live


def test_nothing_is_done_before_it_must_and_the_answers_are_right() -> None:
    backend = opened(FakeGpu(lazily))
    backend.warm_up()
    for seed in range(4):
        assert is_right(backend, rows(11, seed=seed))


def scenario(gpu: FakeGpu) -> tuple[DeviceError | None, bool]:
    """Use a backend in every way; give what went wrong, and whether all else was right."""
    told: DeviceError | None = None
    right = True
    try:
        backend = opened(gpu, replace(OPTIONS, max_batch=2))
    except DeviceError as error:
        return error, True
    try:
        backend.warm_up()
        right &= is_right(backend, rows(5))
        right &= is_right(backend, rows(2, length=5))
        right &= is_right(backend, rows(2, length=5, seed=1))
    except DeviceError as error:
        told = error
        n_calls = len(gpu.calls)
        with pytest.raises(DeviceError, match="broken off before"):
            backend.run(rows(1))
        right &= n_calls == len(gpu.calls)  # it fails at once
    backend.close()
    backend.close()
    return told, right


@pytest.mark.slow
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("fault", ["memory", "lost", "other"])
def test_whatever_call_fails_it_is_told_and_everything_is_given_back(
    fault: CudaFault,
    lazy: bool,  # noqa: FBT001
) -> None:
    plain = FakeGpu()
    assert (None, True) == scenario(plain)
    n_told = 0
    for at_call in range(len(plain.calls)):
        gpu = FakeGpu(mixed_up(at_call, lazy=lazy), Fault(at_call, fault))
        told, right = scenario(gpu)
        assert right, at_call
        assert not +gpu.live, (at_call, plain.calls[at_call])
        n_told += told is not None
        if told is not None:
            assert type(told) is DeviceError or told.args, at_call
    # Nearly all are told; the rest are graphs, which it can do without, and giving things back.
    assert n_told > len(plain.calls) * 0.6


def test_an_error_names_the_backend_and_says_what_can_be_done() -> None:
    said = {}
    for fault in ("memory", "lost"):
        gpu = FakeGpu()
        backend = opened(gpu)
        gpu.fault = Fault(len(gpu.calls) + 3, fault)
        with pytest.raises(DeviceError) as caught:
            backend.run(rows(1))
        said[fault] = str(caught.value)
    assert said["memory"].startswith("tensorrt 10.0.fake f32 Fake 1: ")
    assert "of 1024 MiB are free: lower max_batch (now 4)" in said["memory"]
    assert "must be restarted" in said["lost"]


def test_a_gpu_too_small_is_told_with_its_size_and_left_as_it_was() -> None:
    gpu = FakeGpu(total_bytes=MIB)
    with pytest.raises(DeviceError, match=r"out of memory; 0 of 1 MiB are free: lower max_batch"):
        opened(gpu, scratch_bytes=MIB - 1)
    assert not +gpu.live
    assert 0 == gpu.used_bytes


@pytest.mark.slow
def test_ten_thousand_batches_take_nothing_that_the_first_did_not() -> None:
    gpu = FakeGpu()
    backend = opened(gpu)
    backend.warm_up()
    live, made = dict(gpu.live), dict(gpu.made)
    question = rows(40)
    for _ in range(1000):
        backend.run(question)
        gpu.calls.clear()
    assert (live, made) == (dict(gpu.live), dict(gpu.made))


def test_padding_repeats_a_row_and_no_answer_knows_its_neighbours() -> None:
    seen: list[Mapping[str, Tensor]] = []

    def watched(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        seen.append({name: tensor.copy() for name, tensor in tensors.items()})
        return answer(tensors)

    backend = opened(FakeGpu(), run=watched)
    question = rows(7)
    question["features"][6] = np.nan
    with np.errstate(invalid="ignore"):
        together = backend.run(question)
        alone = backend.run({name: tensor[:6] for name, tensor in question.items()})
    assert [4, 4, 4, 2] == [len(batch["features"]) for batch in seen]
    assert np.isnan(seen[1]["features"][2:]).all()
    assert np.array_equal(together["cas"][:6], alone["cas"])


def test_a_batch_goes_to_the_smallest_size_that_holds_it_unless_there_is_to_be_one() -> None:
    sizes: list[int] = []

    def watched(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        sizes.append(len(tensors["camera"]))
        return answer(tensors)

    backend = opened(FakeGpu(), run=watched)
    for n_rows in (1, 2, 3, 5):
        backend.run(rows(n_rows))
    assert [1, 2, 4, 4, 1] == sizes


def test_once_warm_nothing_but_graphs_is_given_to_the_gpu() -> None:
    gpu = FakeGpu()
    backend = opened(gpu)
    backend.warm_up()
    gpu.calls.clear()
    assert is_right(backend, rows(9))
    assert 3 == gpu.calls.count("launch graph")
    assert "enqueue" not in gpu.calls
    assert "set address" not in gpu.calls


def test_a_new_length_is_recorded_anew_once_it_comes_again() -> None:
    gpu = FakeGpu()
    backend = opened(gpu)
    backend.warm_up()
    graphs = gpu.live["graph"]
    assert 6 == graphs  # three batch sizes in two slots
    assert is_right(backend, rows(1, length=5))
    assert graphs - 2 == gpu.live["graph"]
    assert is_right(backend, rows(1, length=5, seed=1))
    assert graphs - 1 == gpu.live["graph"]
    gpu.calls.clear()
    assert is_right(backend, rows(1, length=5, seed=2))
    assert "enqueue" not in gpu.calls


def test_what_cannot_be_recorded_runs_as_it_is_and_a_note_says_so_once() -> None:
    notes: list[tuple[str, str]] = []
    gpu = FakeGpu()
    gpu.can_capture = False
    options = replace(OPTIONS, max_batch=1, on_log=lambda *note: notes.append(note))
    backend = opened(gpu, options)
    backend.warm_up()
    assert is_right(backend, rows(5))
    assert ["warning"] == [severity for severity, _ in notes]
    assert "batches of 1 run without a CUDA graph" in notes[0][1]


@pytest.mark.parametrize(("overlap", "n_ahead"), [(True, 2), (False, 1)])
def test_the_next_rows_are_on_their_way_before_answers_are_waited_for(
    overlap: bool,  # noqa: FBT001
    n_ahead: int,
) -> None:
    gpu = FakeGpu()
    backend = opened(gpu, replace(OPTIONS, overlap=overlap))
    gpu.calls.clear()
    backend.run(rows(12))
    before = gpu.calls[: gpu.calls.index("synchronize event")]
    assert n_ahead == before.count("upload") / len(SIGNATURE.inputs)
    if overlap:  # else the rows would wait, in their stream, for the work before them
        assert before.index("download") > len(before) - before[::-1].index("upload") - 1


def test_another_thread_is_turned_away() -> None:
    gpu = FakeGpu()
    backend = opened(gpu)
    told: list[str] = []

    def trespass() -> None:
        for use in (lambda: backend.run(rows(1)), backend.warm_up, backend.close):
            try:
                use()
            except DeviceError as error:
                told.append(str(error))

    thread = threading.Thread(target=trespass)
    thread.start()
    thread.join()
    assert 3 == sum("used by another thread" in text for text in told)
    assert is_right(backend, rows(1))
    backend.close()
    with pytest.raises(DeviceError, match="is closed"):
        backend.run(rows(1))


def test_what_is_refused_leaves_the_backend_usable() -> None:
    gpu = FakeGpu()
    backend = opened(gpu)
    with pytest.raises(BundleError, match="plan was built for other lengths"):
        backend.run(rows(1, length=7))
    with pytest.raises(BundleError, match="inputs differ in their rows"):
        backend.run({**rows(2), "camera": np.zeros((3, 2), np.uint8)})
    assert is_right(backend, rows(2))


def test_a_network_that_mixes_its_rows_is_refused() -> None:
    gpu = FakeGpu()

    program = replace(
        numpy_program(SIGNATURE, answer, 2), output_shape=lambda _name, _shapes: (1, 3, 3)
    )
    with pytest.raises(BundleError, match="wanted 2 rows of a known shape"):
        running(gpu, program, BackendOptions(max_batch=2, length=(3, 3, 3)))
    assert not +gpu.live


def test_shapes_that_were_refused_are_not_taken_for_set() -> None:
    gpu = FakeGpu()
    program = numpy_program(SIGNATURE, answer, 1)

    def only_short(name: str, shapes: Mapping[str, Shape]) -> Shape:
        return (-1,) if shapes["features"][1] == 5 else program.output_shape(name, shapes)

    choosy = replace(program, output_shape=only_short)
    backend = running(gpu, choosy, replace(OPTIONS, max_batch=1))
    assert is_right(backend, rows(1))
    with pytest.raises(BundleError, match="of a known shape"):
        backend.run(rows(1, length=5))
    assert is_right(backend, rows(1))


def test_a_call_that_is_broken_off_is_the_last() -> None:
    gpu = FakeGpu()

    def interrupted(_tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        raise KeyboardInterrupt

    backend = opened(gpu, run=interrupted)
    with pytest.raises(KeyboardInterrupt):
        backend.run(rows(1))
    with pytest.raises(DeviceError, match="broken off before: KeyboardInterrupt"):
        backend.run(rows(1))


# From a file


def open_file(
    trt: FakeTensorRt, path: Path, options: BackendOptions | None = None, precision: str = "f32"
) -> TensorRtBackend:
    return open_tensorrt(
        path,
        precision=precision,
        options=options or replace(OPTIONS, max_batch=2, cache_dir=path.parent / "plans"),
        toolkit=trt.toolkit(),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    onnx.save(localizer(), tmp_path / "localizer.onnx")
    return tmp_path / "localizer.onnx"


def test_a_plan_is_built_once_and_described(path: Path) -> None:
    trt = FakeTensorRt(FakeGpu())
    first, second = open_file(trt, path), open_file(trt, path)
    assert "tensorrt 10.0.fake f32 Fake 1" == first.description == second.description
    assert 1 == trt.n_built
    one_size = replace(OPTIONS, max_batch=2, one_batch_size=True, cache_dir=path.parent / "plans")
    third = open_file(trt, path, one_size)
    assert 2 == trt.n_built  # other shapes, another plan
    question = {
        "features": np.ones((1, 3, 3), np.float32),
        "valid": np.ones((1, 3), np.float32),
    }
    assert np.array_equal(first.run(question)["cas"], third.run(question)["cas"])
    for backend in (first, third, second):
        backend.close()
    assert not +trt.gpu.live


def test_a_kept_plan_that_does_not_load_is_built_again(path: Path) -> None:
    notes: list[str] = []
    options = replace(
        OPTIONS,
        max_batch=2,
        cache_dir=path.parent / "plans",
        on_log=lambda _severity, note: notes.append(note),
    )
    trt = FakeTensorRt(FakeGpu(), builds_well=False)
    with pytest.raises(DeviceError, match="does not load its own plan on Fake 1"):
        open_file(trt, path, options)
    assert 1 == trt.n_built
    assert not +trt.gpu.live
    bad = FakeTensorRt(trt.gpu, builds_well=False)
    key_holder = bad.toolkit()
    # A driver's update that keeps its version: kept well, loaded no more.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeTensorRt, "load", lambda *_: None)
        with pytest.raises(DeviceError, match="does not load"):
            open_tensorrt(path, precision="f32", options=options, toolkit=key_holder)
    trt.builds_well = True
    open_file(trt, path, options).close()
    assert 2 == trt.n_built
    assert any("does not load it" in note for note in notes)
    assert not +trt.gpu.live


def test_a_kept_plan_that_stops_loading_is_built_once_more(path: Path) -> None:
    gpu = FakeGpu()
    trt = FakeTensorRt(gpu)
    open_file(trt, path).close()
    real_load = FakeTensorRt.load
    n_refused = iter([True])

    def load(self: FakeTensorRt, *arguments: object) -> object:
        return None if next(n_refused, False) else real_load(self, *arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeTensorRt, "load", load)
        backend = open_file(trt, path)
    assert 2 == trt.n_built
    backend.close()
    assert not +gpu.live


def test_a_plan_of_another_network_is_not_run(path: Path) -> None:
    gpu = FakeGpu()
    trt = FakeTensorRt(gpu)
    real_obtain = FakeTensorRt.obtain

    def obtain(self: FakeTensorRt, *arguments: object) -> object:
        obtained = real_obtain(self, *arguments)  # type: ignore[arg-type]
        other = fake_plan(backbone().SerializeToString(), 2)
        return replace(obtained, plan=other, is_from_cache=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeTensorRt, "obtain", obtain)
        with pytest.raises(DeviceError, match="does not load its own plan"):
            open_file(trt, path)
    assert not +gpu.live


def test_a_precision_that_the_file_has_not_is_refused(path: Path) -> None:
    trt = FakeTensorRt(FakeGpu())
    open_file(trt, path, precision="auto").close()
    with pytest.raises(BundleError, match=r"localizer.onnx computes in f32, but precision is f16"):
        open_file(trt, path, precision="f16")
    with pytest.raises(BundleError, match=r"'fp8', wanted one of .*'f16'"):
        open_backend("tensorrt", path, precision="fp8")


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="max_batch is 0"):
        BackendOptions(max_batch=0)
    with pytest.raises(ValueError, match="gpu is -1"):
        BackendOptions(gpu=-1)


def test_without_pycuda_or_a_driver_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "pycuda"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(DeviceError, match=r"pip install 's2netd\[gpu\]'"):
        open_pycuda(0)
    monkeypatch.delitem(sys.modules, "pycuda")
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda" / "__init__.py").touch()
    text = "libcuda.so.1: cannot open shared object file: No such file or directory"
    (tmp_path / "pycuda" / "driver.py").write_text(f"raise ImportError({text!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DeviceError, match=r"libcuda.so.1.*install the NVIDIA driver"):
        open_pycuda(0)


def test_the_fake_gpu_finds_what_it_is_there_to_find() -> None:
    """A buffer that is freed while a copy from it is under way."""
    gpu = FakeGpu(lazily)
    cuda = gpu.open()
    with cuda.current():
        stream, pinned, memory = cuda.stream(), cuda.pin(8), cuda.allocate(8)
        cuda.upload(memory, pinned.array, stream)
        memory.free()
        with pytest.raises(MisuseError, match="used after it was freed"):
            stream.synchronize()
