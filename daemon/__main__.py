"""`python -m daemon` does what `s2netd` does."""

from daemon.cli import main

main()
