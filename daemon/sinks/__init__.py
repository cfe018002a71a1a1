"""Where events go: the protocol `EventSink`, and one file a transport.

How an event is written down is in `daemon.wire`, what goes in which order in `daemon.stream`.
"""
