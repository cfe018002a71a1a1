"""Where each camera's state is kept: the protocol `StateStore`, and one file a store.

The stores keep bytes; what is in them is known in `daemon.stream` and `engine.session`.
"""
