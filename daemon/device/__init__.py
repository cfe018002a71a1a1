"""Runs the networks: chooses whose request is next, in the one thread that makes the calls.

Which model is used is decided in `daemon.models`; the runtimes are in `engine.backends`.
"""
