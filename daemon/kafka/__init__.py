"""What every Kafka adapter shares: connections, and a producer that waits within limits."""
