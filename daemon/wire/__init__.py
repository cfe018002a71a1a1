"""The formats of what comes in and goes out: records of chunks and records of events.

Nothing is sent or stored here; that is in `daemon.sources`, `daemon.journal` and `daemon.produce`.
"""
