"""The whole thing on this machine: events through Kafka, a real worker and Redis, watched and then checked."""

from streamseg.demo.run import Options, run_demo

__all__ = ["Options", "run_demo"]
