"""The local Kafka and Redis themselves."""
