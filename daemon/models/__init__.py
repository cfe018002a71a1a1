"""Reads, opens, holds and pulls models, and replaces them while cameras are served.

The files of a model are read in `engine.bundle`; plans for GPUs are managed in `daemon.plans`.
"""
