"""A TensorRT for the fake GPU: its plans are ONNX networks, run row by row in Python."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from engine.backends.base import Signature, Tensor
from engine.backends.options import BackendOptions, OnLog
from engine.backends.tensorrt.cuda import Plan, PlanTensor, Shape
from engine.backends.tensorrt.gpu_identity import GpuIdentity
from engine.backends.tensorrt.library import TensorRt
from engine.backends.tensorrt.opening import Toolkit
from engine.backends.tensorrt.plan_cache import Obtained, PlanCache
from engine.backends.tensorrt.plan_recipe import PlanRecipe
from tests.support.fake_cuda import FakeGpu
from tests.support.fake_plan import FakePlan, Network, Program

FAKE = TensorRt(module=None, kind="tensorrt", version="10.0.fake")
MAGIC = b"FAKEPLAN"


@dataclass
class FakeTensorRt:
    """Builds and loads plans for a fake GPU.

    Args:
        gpu: Where they run.
    """

    gpu: FakeGpu
    n_built: int = 0
    loads: list[bytes] = field(default_factory=list)
    builds_well: bool = True

    def toolkit(self) -> Toolkit:
        return Toolkit(FAKE, self.gpu.open, self.obtain, self.load)

    def obtain(
        self,
        trt: TensorRt,
        gpu: GpuIdentity,
        cache: PlanCache,
        wanted: PlanRecipe,
        _options: BackendOptions,
    ) -> Obtained:
        def build() -> bytes:
            self.gpu.call("build", unsafe=True)
            self.n_built += 1
            if not self.builds_well:
                return b"a plan for another GPU"
            return fake_plan(wanted.onnx, len(wanted.profiles))

        return cache.obtain(wanted.key(trt, gpu), build)

    def load(self, _trt: TensorRt, plan: bytes, _on_log: OnLog) -> Plan | None:
        self.loads.append(plan)
        if not plan.startswith(MAGIC):
            return None
        content: dict[str, Any] = json.loads(plan.removeprefix(MAGIC))
        model = onnx.load_from_string(base64.b64decode(content["onnx"]))
        return FakePlan(self.gpu, onnx_program(model, content["n_profiles"]))


def fake_plan(network: bytes, n_profiles: int) -> bytes:
    """A plan as it lies in the cache."""
    content = {"onnx": base64.b64encode(network).decode(), "n_profiles": n_profiles}
    return MAGIC + json.dumps(content).encode()


def onnx_program(model: onnx.ModelProto, n_profiles: int) -> Program:
    reference = ReferenceEvaluator(model)
    names = [value.name for value in model.graph.output]

    def row(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return dict(zip(names, reference.run(None, dict(tensors)), strict=True))

    inputs = {value.name: value for value in model.graph.input}
    outputs = {value.name: value for value in model.graph.output}

    def output_shape(name: str, shapes: Mapping[str, Shape]) -> Shape:
        lengths = {
            dim.dim_param: seen
            for given, shape in shapes.items()
            for dim, seen in zip(inputs[given].type.tensor_type.shape.dim, shape, strict=True)
            if dim.dim_param
        }
        dims = outputs[name].type.tensor_type.shape.dim
        return tuple(lengths[dim.dim_param] if dim.dim_param else dim.dim_value for dim in dims)

    tensors = (
        *(_plan_tensor(value, is_input=True) for value in inputs.values()),
        *(_plan_tensor(value, is_input=False) for value in outputs.values()),
    )
    return Program(by_rows(row, names), tensors, output_shape, n_profiles)


def by_rows(row: Network, names: list[str]) -> Network:
    """A network of batches of one, over whole batches."""

    def batch(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        n_rows = len(next(iter(tensors.values())))
        rows = [row({name: t[i : i + 1] for name, t in tensors.items()}) for i in range(n_rows)]
        return {name: np.concatenate([answer[name] for answer in rows]) for name in names}

    return batch


def numpy_program(signature: Signature, row: Network, n_profiles: int) -> Program:
    """One of a function; free lengths of outputs are the first input's second dimension."""
    first = signature.inputs[0].name

    def output_shape(name: str, shapes: Mapping[str, Shape]) -> Shape:
        spec = next(spec for spec in signature.outputs if spec.name == name)
        given = shapes[first]
        return tuple(given[axis] if n is None else n for axis, n in enumerate(spec.shape))

    tensors = tuple(
        PlanTensor(spec.name, tuple(-1 if n is None else n for n in spec.shape), spec.dtype, given)
        for specs, given in ((signature.inputs, True), (signature.outputs, False))
        for spec in specs
    )
    return Program(row, tensors, output_shape, n_profiles)


def _plan_tensor(value: Any, *, is_input: bool) -> PlanTensor:
    tensor = value.type.tensor_type
    shape = tuple(-1 if dim.dim_param else dim.dim_value for dim in tensor.shape.dim)
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return PlanTensor(value.name, shape, dtype, is_input)
