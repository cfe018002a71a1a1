"""`s2netd produce`: footage → chunks in a folder or a Kafka topic.

How footage is cut is in `engine.video`, how a chunk is written down in `daemon.wire`.
"""
