"""What every Kafka adapter shares: connections, and a producer that waits within limits.

The adapters themselves are in `daemon.sources`, `daemon.sinks` and `daemon.produce`.
"""
