"""The formats: chunks as they come in, event records as they go out.

Nothing is sent or stored here; that is in `daemon.sources`, `daemon.sinks` and `daemon.produce`.
"""
