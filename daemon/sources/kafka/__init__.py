"""Chunks from a Kafka topic, shared out among the members of a consumer group.

`source` reads records and makes deliveries of them; `assignment` knows which partitions are ours.
"""
