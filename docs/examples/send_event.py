"""Sends one purchase: python send_event.py HOST:PORT TOPIC."""

import asyncio
import json
import sys
from datetime import UTC, datetime

from aiokafka import AIOKafkaProducer


async def main(kafka: str, topic: str) -> None:
    """The key is the customer id, so that all events of a customer come to the same partition."""
    event = {
        "id": "shop-4711", "type": "purchase", "customer_id": "c42", "time": datetime.now(UTC).isoformat(),
        "order_id": "o-4711", "amount": "49.90", "currency": "EUR", "props": {"category": "shoes"},
    }  # fmt: skip
    async with AIOKafkaProducer(bootstrap_servers=kafka, acks="all", enable_idempotence=True) as producer:
        key = str(event["customer_id"]).encode()
        await producer.send_and_wait(topic, json.dumps(event).encode(), key=key)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
