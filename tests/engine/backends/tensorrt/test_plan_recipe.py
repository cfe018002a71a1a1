"""What TensorRT itself is asked for when a plan is built, played by a module with its names.

That the names exist is held against the real bindings in ``test_plan``.
"""

from collections import Counter
from dataclasses import replace
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from engine.backends.options import BackendOptions
from engine.backends.tensorrt.gpu_identity import GpuIdentity
from engine.backends.tensorrt.library import TensorRt
from engine.backends.tensorrt.plan_build import WORKSPACE_BYTES
from engine.backends.tensorrt.plan_cache import Obtained, PlanCache
from engine.backends.tensorrt.plan_recipe import obtain_plan, recipe
from tests.support.tiny_bundle import localizer

GPU = GpuIdentity("NVIDIA L4", "8.9", "13.0")
DEFAULT_FLAGS = ["TF32"]
TWO_SIZES = BackendOptions(max_batch=2, length=(6, 6, 6))


class PlayedLogger:
    class Severity(IntEnum):
        ERROR = 1


class PlayedModule(SimpleNamespace):
    __hash__ = object.__hash__  # as modules have it


class Played:
    """A TensorRT 10 that compiles nothing, and what it was asked for.

    Timings that it gives are those that it was given, and one more.
    """

    def __init__(self) -> None:
        self.network_flags: list[int] = []
        self.parsed: list[bytes] = []
        self.timings: list[bytes] = []
        self.mismatches_ignored: list[bool] = []
        self.refused_timings: bytes | None = None
        self.configs: list[PlayedConfig] = []

    def trt(self) -> TensorRt:
        module = PlayedModule(
            ILogger=PlayedLogger,
            IProgressMonitor=object,
            Builder=lambda _logger: PlayedBuilder(self),
            OnnxParser=lambda _network, _logger: SimpleNamespace(parse=self.parse),
            NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
            MemoryPoolType=SimpleNamespace(WORKSPACE="workspace"),
            BuilderFlag=SimpleNamespace(TF32="TF32"),
        )
        return TensorRt(module, "tensorrt", "10.15.1.29")

    def parse(self, network: bytes) -> bool:
        self.parsed.append(network)
        return True


class PlayedBuilder:
    def __init__(self, played: Played) -> None:
        self._played = played

    def create_network(self, flags: int) -> Any:
        self._played.network_flags.append(flags)
        shapes = {"features": (-1, -1, 3), "valid": (-1, -1)}
        inputs = [SimpleNamespace(name=name, shape=shape) for name, shape in shapes.items()]
        return SimpleNamespace(num_inputs=2, num_outputs=3, get_input=inputs.__getitem__)

    def create_builder_config(self) -> "PlayedConfig":
        self._played.configs.append(PlayedConfig(self._played))
        return self._played.configs[-1]

    def create_optimization_profile(self) -> Any:
        return SimpleNamespace(set_shape=lambda _name, _least, _usual, _most: None)

    def build_serialized_network(self, _network: Any, config: "PlayedConfig") -> bytes:
        if config.timings is not None:
            config.timings.content += b"+"
        return b"plan"


class PlayedTimings:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content


class PlayedConfig:
    def __init__(self, played: Played) -> None:
        self._played = played
        self.flags = set(DEFAULT_FLAGS)
        self.pools: dict[str, int] = {}
        self.n_profiles = 0
        self.timings: PlayedTimings | None = None

    def set_memory_pool_limit(self, pool: str, n_bytes: int) -> None:
        self.pools[pool] = n_bytes

    def clear_flag(self, flag: str) -> None:
        self.flags.discard(flag)

    def add_optimization_profile(self, _profile: Any) -> int:
        self.n_profiles += 1
        return self.n_profiles - 1

    def create_timing_cache(self, content: bytes) -> PlayedTimings:
        self._played.timings.append(content)
        return PlayedTimings(content)

    def set_timing_cache(self, timings: PlayedTimings, ignore_mismatch: bool) -> bool:  # noqa: FBT001 - TensorRT's own
        self._played.mismatches_ignored.append(ignore_mismatch)
        if timings.content == self._played.refused_timings:
            return False
        self.timings = timings
        return True


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "tiny" / "localizer.onnx"
    path.parent.mkdir()
    onnx.save(localizer(), path)
    return path


def obtained(
    played: Played, cache: PlanCache, network: Path, options: BackendOptions = TWO_SIZES
) -> Obtained:
    return obtain_plan(played.trt(), GPU, cache, recipe(network, options), options)


def one_size(n_rows: int) -> BackendOptions:
    return replace(TWO_SIZES, max_batch=n_rows, one_batch_size=True)


def test_the_builder_is_asked_for_the_networks_own_precision_and_every_profile(network, tmp_path):
    played = Played()
    found = obtained(played, PlanCache(tmp_path / "plans"), network)

    assert b"plan" == found.plan
    assert [1 << 1] == played.network_flags  # strongly typed
    assert [network.read_bytes()] == played.parsed
    (config,) = played.configs
    assert set() == config.flags  # f32 means f32: no TF32
    assert {"workspace": WORKSPACE_BYTES} == config.pools
    assert 2 == config.n_profiles


def test_timings_of_one_build_are_what_the_next_one_starts_from(network, tmp_path):
    played, cache = Played(), PlanCache(tmp_path / "plans")
    for n_rows in (1, 2, 4):
        obtained(played, cache, network, one_size(n_rows))

    assert [b"", b"+", b"++"] == played.timings
    assert [False] * 3 == played.mismatches_ignored
    assert {".plan": 3, ".timings": 1} == Counter(e.path.suffix for e in cache.entries())


def test_timings_that_do_not_fit_are_begun_anew_and_kept(network, tmp_path):
    played, cache = Played(), PlanCache(tmp_path / "plans")
    played.refused_timings = b"+"
    for n_rows in (1, 2):
        obtained(played, cache, network, one_size(n_rows))

    assert [b"", b"+", b""] == played.timings
    assert [b"+"] == [config.timings.content for config in played.configs[1:] if config.timings]


def test_a_cache_that_cannot_be_used_does_not_stop_the_build(network, tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    notes: list[str] = []
    played, cache = Played(), PlanCache(tmp_path / "cache" / "plans", on_note=notes.append)
    found = obtained(played, cache, network)

    assert b"plan" == found.plan
    assert "Not a directory" in found.unsaved
    assert [b""] == played.timings
    assert 3 == len([note for note in notes if "Not a directory" in note])
    assert 1 == len([note for note in notes if ".timings is not used: " in note])


def test_a_cache_whose_place_is_a_file_does_not_stop_the_build_either(network, tmp_path):
    (tmp_path / "plans").write_text("a file where a folder should be")
    played, cache = Played(), PlanCache(tmp_path / "plans")
    found = obtained(played, cache, network)

    assert b"plan" == found.plan
    assert "File exists" in found.unsaved


def test_a_listing_knows_which_network_of_which_bundle_it_is(network, tmp_path):
    cache = PlanCache(tmp_path / "plans")
    obtained(Played(), cache, network)

    assert ["tiny localizer"] == [e.network for e in cache.entries() if e.path.suffix == ".plan"]


def test_the_file_is_read_once_on_the_way_to_a_plan(network, tmp_path, monkeypatch):
    parsed: list[int] = []
    parse = onnx.load_from_string
    monkeypatch.setattr(
        onnx, "load_from_string", lambda content: parsed.append(len(content)) or parse(content)
    )
    read: list[Path] = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or read_bytes(path))
    wanted = recipe(network, TWO_SIZES)
    network.unlink()
    found = obtain_plan(Played().trt(), GPU, PlanCache(tmp_path / "plans"), wanted, TWO_SIZES)

    assert b"plan" == found.plan
    assert [network] == [path for path in read if path.suffix == ".onnx"]
    assert 1 == len(parsed)
