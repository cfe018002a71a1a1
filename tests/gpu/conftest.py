"""Only where there is an NVIDIA GPU with its driver, pycuda and TensorRT."""

import pytest

from engine.backends.tensorrt.opening import Toolkit, installed_toolkit
from engine.errors import DeviceError


@pytest.fixture(scope="session")
def toolkit() -> Toolkit:
    try:
        kit = installed_toolkit()
        cuda = kit.open_cuda(0)
    except DeviceError as error:
        pytest.skip(f"no GPU to test on: {error}")
    cuda.close()
    return kit
