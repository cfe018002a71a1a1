"""Localization networks and their losses: one file and one row of ``NETWORKS`` each network.

How they are trained is in `training.learning`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from training.networks.base import Network
from training.networks.online import Online, OnlineConfig
from training.networks.s2net import S2Net
from training.networks.s2net_config import S2NetConfig
from training.networks.sal import Sal, SalConfig
from training.networks.sdanet import SdaNet, SdaNetConfig
from training.networks.tsc_net import TscNet, TscNetConfig
from training.networks.two_stream import TwoStream, TwoStreamConfig


@dataclass(frozen=True, slots=True)
class NetworkEntry:
    """How to configure and build one network.

    Attributes:
        config_type: Frozen dataclass that ``engine.files.strict_yaml.parse`` reads from YAML.
        build: ``build(config, feature_dim=D, n_classes=C)``; as it draws weights, torch must be
            seeded before.
    """

    config_type: type[Any]
    build: Callable[..., Network]


NETWORKS: dict[str, NetworkEntry] = {
    "s2net": NetworkEntry(S2NetConfig, S2Net),
    "sal": NetworkEntry(SalConfig, Sal),
    "sdanet": NetworkEntry(SdaNetConfig, SdaNet),
    "tsc-net": NetworkEntry(TscNetConfig, TscNet),
    "two-stream": NetworkEntry(TwoStreamConfig, TwoStream),
}

# Networks that need a teacher; what is said of ``NETWORKS`` holds for them too.
STUDENTS: dict[str, NetworkEntry] = {"online": NetworkEntry(OnlineConfig, Online)}


def entry_of(kind: str) -> NetworkEntry:
    """The row of ``NETWORKS`` or ``STUDENTS`` of this name."""
    return NETWORKS.get(kind) or STUDENTS[kind]
