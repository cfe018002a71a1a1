"""How tests are shared out where several processes run them (pytest -n 2 --dist loadfile)."""

import pytest
from typing_extensions import override
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling


class WholeFiles(LoadFileScheduling):
    """A file is run by one process, in the order collected; all of the GPU's by one."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    @override
    def _split_scope(self, nodeid: str) -> str:
        return "tests/gpu" if nodeid.startswith("tests/gpu/") else super()._split_scope(nodeid)
