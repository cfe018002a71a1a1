"""Real brokers for the contract suites."""

from tests.support.kafka import kafka_bootstrap, make_topic

__all__ = ["kafka_bootstrap", "make_topic"]
