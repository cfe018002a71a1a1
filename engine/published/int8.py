"""A backbone in f32, and what footage once told of it → the same backbone in int8.

What was measured (`Calibration`) depends on the footage and, in its last bits, on the CPU. What is
written from it does not: it takes products, quotients and roundings of single numbers, which are
the same everywhere. So a calibration that is shipped gives the same file on every machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from engine.errors import BundleError
from engine.files.npz import NPZ_DAMAGE
from engine.files.onnx_bytes import serialized
from engine.published.int8_graph import ConvolutionGraph, with_quantization
from engine.types import FloatArray


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured of a network in f32.

    Attributes:
        steps: Tensor that is rounded → the value that 1 of int8 stands for.
        biases: Initializer → float32 (out,), corrected for the rounding before it.
    """

    steps: Mapping[str, float]
    biases: Mapping[str, FloatArray]


def in_int8(network: bytes, calibration: Calibration, kept: frozenset[str] = frozenset()) -> bytes:
    """Write a network with QDQ pairs.

    Args:
        network: Serialised ONNX in f32.
        calibration: What was measured of it.
        kept: Names of convolutions' output tensors; these convolutions stay f32.

    Returns:
        Serialised ONNX; equal bytes for equal arguments on every machine.

    Raises:
        BundleError: The network has no convolution, or is another than was measured.
    """
    graph = ConvolutionGraph(onnx.load_from_string(network))
    wanted = {source for group in graph.groups(kept) for source in group}
    if wanted != set(calibration.steps) or not set(calibration.biases) <= set(graph.weights):
        raise BundleError("the calibration is of another network: calibrate this one")
    model = with_quantization(graph, calibration.biases, calibration.steps, kept)
    onnx.checker.check_model(model, full_check=True)
    return serialized(model)


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration as a file: names, float32 steps (N,) and biases one after another.

    Raises:
        OSError: It cannot be written.
    """
    biases = calibration.biases
    with path.open("wb") as file:
        np.savez(
            file,
            sources=np.array(list(calibration.steps), np.str_),
            steps=np.array(list(calibration.steps.values()), np.float32),
            biases=np.array(list(biases), np.str_),
            sizes=np.array([len(bias) for bias in biases.values()], np.int64),
            values=np.concatenate([np.zeros(0, np.float32), *biases.values()]),
        )


def read_calibration(path: Path) -> Calibration:
    """Read what ``write_calibration`` wrote.

    Raises:
        BundleError: It is missing or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            sizes = arrays["sizes"]
            biases = np.split(arrays["values"], np.cumsum(sizes)[:-1]) if len(sizes) else []
            return Calibration(
                dict(zip(arrays["sources"].tolist(), arrays["steps"].tolist(), strict=True)),
                dict(zip(arrays["biases"].tolist(), biases, strict=True)),
            )
    except NPZ_DAMAGE as error:
        raise BundleError(f"{path} is no calibration: {error}") from error
