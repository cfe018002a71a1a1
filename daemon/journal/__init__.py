"""What the daemon has done, kept in atomic steps: the protocol `Journal`, and its implementations.

A journal keeps bytes and events; what a camera's state means is known in `daemon.stream` and
`engine.session`.
"""
