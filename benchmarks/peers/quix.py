"""The job in Quix Streams: a data frame with state, in RocksDB with a changelog.

python -m benchmarks.peers.quix KAFKA EVENTS CHANGES GROUP FOLDER COMMIT_MS
"""

from __future__ import annotations

import sys
from typing import Any

from quixstreams import Application

from benchmarks.peers.rules import apply, new_profile


def segment(event: dict[str, Any], state: Any) -> Any:
    """Events in, changes out."""
    profile = state.get("profile") or new_profile()
    change = apply(profile, event["id"], event["type"], event["customer_id"], event["time"], event.get("amount"))
    state.set("profile", profile)
    return change


def main() -> None:
    """Run until stopped."""
    kafka, events, changes, group, folder, commit_ms = sys.argv[1:]
    app = Application(
        broker_address=kafka,
        consumer_group=group,
        auto_offset_reset="earliest",
        commit_interval=int(commit_ms) / 1000,
        state_dir=folder,
        loglevel="WARNING",
        producer_extra_config={"linger.ms": 20},
    )
    source = app.topic(events, key_deserializer="str", value_deserializer="json")
    sink = app.topic(changes, key_serializer="str", value_serializer="json")
    frame = app.dataframe(source).apply(segment, stateful=True)
    frame.filter(lambda change: change is not None).to_topic(sink)
    app.run()


if __name__ == "__main__":
    main()
