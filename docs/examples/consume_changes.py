"""Prints every change of a segment once: python consume_changes.py HOST:PORT [TOPIC]."""

import asyncio
import json
import sys

from aiokafka import AIOKafkaConsumer

handled: dict[str, int] = {}  # the highest version by customer; a real consumer keeps it beside its own data


async def main(kafka: str, topic: str) -> None:
    """Reads from the beginning, and goes on until it is stopped."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=kafka, group_id="my-crm", auto_offset_reset="earliest", enable_auto_commit=False
    )
    async with consumer:
        async for record in consumer:
            change = json.loads(record.value)
            customer, version = change["customer_id"], change["version"]
            if version > handled.get(customer, 0):  # else it came again after a crash
                print(
                    f"{customer} {change['scheme']}: {change['from']} -> {change['to']} ({change['reason']})",
                    flush=True,
                )
                handled[customer] = version
            await consumer.commit()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "streamseg.segment-changes"))
