"""`python -m daemon` is `s2netd`."""

from daemon.cli import main

main()
