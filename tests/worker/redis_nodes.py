"""A Redis Cluster on this machine: three primaries, and a replica for the first if it is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from redis import Redis

from streamseg.services import LocalRedis
from streamseg.services.service import LOOPBACK, free_port
from tests.worker.running_worker import wait_until

SLOTS = 16_384


class Node(LocalRedis):
    """A node, which keeps its place in the cluster over a restart, but no data."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._bus = free_port()

    def _command(self) -> list[str]:
        cluster = ["--cluster-enabled", "yes", "--cluster-port", str(self._bus), "--cluster-config-file", "nodes.conf"]
        return [*super()._command(), *cluster, "--cluster-node-timeout", "1500", "--repl-diskless-sync-delay", "0"]

    def tell(self, *command: object) -> str:
        """Do something to the node."""
        with Redis.from_url(self.url, decode_responses=True) as client:
            return str(client.execute_command(*command))

    @property
    def works(self) -> bool:
        """Whether the node holds that every slot is served."""
        return "'cluster_state': 'ok'" in self.tell("CLUSTER INFO")

    @property
    def is_primary(self) -> bool:
        return self.tell("ROLE").startswith("['master'")

    def join(self, other: Node) -> None:
        self.tell("CLUSTER MEET", LOOPBACK, other.port, other._bus)

    def follow(self, primary: Node) -> None:
        """Become a replica, and wait until it has all."""
        name = primary.tell("CLUSTER MYID")
        wait_until(lambda: name in self.tell("CLUSTER NODES"), "the nodes know each other")
        self.tell("CLUSTER REPLICATE", name)
        wait_until(lambda: "'connected'" in self.tell("ROLE"), "the replica has all")


@contextmanager
def local_cluster(directory: Path, replicas: int = 0) -> Iterator[list[Node]]:
    """Run three primaries, and behind them in the list replicas of the first."""
    nodes = [Node(directory / f"node-{number}") for number in range(3 + replicas)]
    with ExitStack() as stack:
        for number, node in enumerate(nodes):
            stack.enter_context(node)
            node.tell("CLUSTER SET-CONFIG-EPOCH", number + 1)
            node.join(nodes[0])
        for number, node in enumerate(nodes[:3]):
            node.tell("CLUSTER ADDSLOTSRANGE", SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1)
        for replica in nodes[3:]:
            replica.follow(nodes[0])
        wait_until(lambda: all(node.works for node in nodes), "the cluster works")
        yield nodes


def restart(node: Node) -> None:
    """Crash a node and bring it back without its data."""
    node.kill()
    node.start()
    wait_until(lambda: node.works, "the cluster works")


def fail_over(primary: Node, replica: Node) -> None:
    """Crash a node, and wait until its replica stands in."""
    primary.kill()
    wait_until(lambda: replica.is_primary and replica.works, "the replica has taken over")
