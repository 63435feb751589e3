"""The worker: Faust on Kafka around the core."""
