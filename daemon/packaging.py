"""Checks that what Python imports as daemon, engine and training is this distribution.

Other distributions own such plain names too (python-daemon does), and installing one overwrites
files without a word.
"""

from importlib.metadata import packages_distributions

from daemon.errors import ConfigError

PACKAGES = ("daemon", "engine", "training")


def check_packages() -> None:
    """Check that all three import packages belong to this distribution.

    Raises:
        ConfigError: One does not; names the foreign distribution and the fix.
    """
    owners = packages_distributions()
    for name in PACKAGES:
        owner = sorted(set(owners.get(name, [])))
        if owner != ["s2netd"]:
            raise ConfigError(
                f"import package {name!r} belongs to {owner or 'nobody'}, wanted only s2netd: "
                "install s2netd in a virtual environment of its own"
            )
