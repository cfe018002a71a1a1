"""Where each camera's state is kept: the protocol `StateStore`, and one file for each store.

The stores keep bytes; what these mean is known in `daemon.stream` and `engine.session`.
"""
