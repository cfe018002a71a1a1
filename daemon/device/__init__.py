"""What computes the networks: whose request is next, and the one thread that makes the calls.

Which model it computes with is in `daemon.models`, the runtimes are in `engine.backends`.
"""
