"""`s2netd produce`: footage → chunks in a folder or a Kafka topic."""
