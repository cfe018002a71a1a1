"""What the Kafka adapters share: connections, and a producer that tries again up to a deadline.

The adapters themselves are in `daemon.sources`, `daemon.journal` and `daemon.produce`.
"""
