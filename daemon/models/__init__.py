"""Models in the daemon: read, opened, held, replaced while cameras are served, pulled.

The files of a model are read in `engine.bundle`; plans for GPUs are managed in `daemon.plans`.
"""
