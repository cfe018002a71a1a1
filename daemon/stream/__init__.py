"""One camera's chunks, from the source's deliveries to the position that may be committed.

What is computed from a chunk is in `engine.session`; cameras come and go in `daemon.app`.
"""
