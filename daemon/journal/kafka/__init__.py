"""The journal in Kafka: one transaction a step, and its topics are all that daemons share."""
