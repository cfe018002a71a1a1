"""Where events go: the protocol `EventSink`, and one file for each transport.

How an event is written down is in `daemon.wire`; the order in which events go is in
`daemon.stream`.
"""
