"""Every network of the table, shrunk: what its shipped configuration says, in a few channels."""

from typing import Any

from engine.files.strict_yaml import read_yaml
from tests.support.checkout import CHECKOUT

CONFIGS = CHECKOUT / "configs/training"
# What makes a network small and lets its schedule begin at once; the rest is as it is shipped.
SMALL: dict[str, dict[str, Any]] = {
    "sal": {"width": 8, "rank": 4},
    # Four values a head: OpenVINO multiplies by two columns wrongly where a CPU has AVX alone.
    "sdanet": {"width": 4, "fused_width": 6, "heads": 1},
    "tsc-net": {
        "width": 8,
        "heads": 2,
        "bank_heads": 2,
        "bank_head_width": 3,
        "attention_width": 4,
    },
    "two-stream": {"hidden_width": 8, "warm_up_steps": 2},
}


def small_section(kind: str, of: str = "thumos14", **changes: Any) -> dict[str, Any]:
    """The section ``network`` of ``kind-of.yaml``, shrunk and changed."""
    content, _ = read_yaml(CONFIGS / f"{kind}-{of}.yaml")
    return {**content["network"], **SMALL[kind], **changes}


def small_network_config(kind: str, of: str = "thumos14", **changes: Any) -> Any:
    """The same as the configuration that the network's row of the table names."""
    from engine.files.strict_yaml import parse  # noqa: PLC0415 - beside what needs torch
    from training.networks import NETWORKS  # noqa: PLC0415 - needs torch

    section = small_section(kind, of, **changes)
    del section["kind"]
    return parse(NETWORKS[kind].config_type, section, kind)


def small_network(kind: str, *, feature_dim: int, n_classes: int, **changes: Any) -> Any:
    """A fresh network of seed 0; ``of`` and what else is changed as in ``small_section``."""
    import torch  # noqa: PLC0415 - not everywhere

    from training.networks import NETWORKS  # noqa: PLC0415 - needs torch

    torch.manual_seed(0)
    config = small_network_config(kind, **changes)
    return NETWORKS[kind].build(config, feature_dim=feature_dim, n_classes=n_classes)


def shipped_network(name: str, *, feature_dim: int, n_classes: int) -> Any:
    """The network of a shipped configuration in its own size, with shapes and without numbers."""
    import torch  # noqa: PLC0415 - not everywhere

    from training.config import read_training_config  # noqa: PLC0415 - needs torch
    from training.networks import NETWORKS  # noqa: PLC0415 - needs torch

    choice = read_training_config(CONFIGS / f"{name}.yaml").network
    with torch.device("meta"):
        return NETWORKS[choice.kind].build(
            choice.config, feature_dim=feature_dim, n_classes=n_classes
        )
