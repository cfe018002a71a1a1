"""Where chunks come from: the protocol `ChunkSource`, and one file for each transport.

How a chunk's headers are read is in `daemon.wire`; the other end, which writes chunks, is in
`daemon.produce`.
"""
