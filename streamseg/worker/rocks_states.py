"""States in RocksDB on this machine's disk, for more customers than fit into memory.

The files are a copy of the changelog for as long as the process owns the partition, and are never read by another
process: a take-over begins with an empty folder. So nothing has to be synced, and there is no log of writes.
The reasons stand in docs/decisions/0016.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from streamseg.core.errors import InputError, TryAgainError

CACHE_BYTES = 64 << 20
"""Blocks, indexes and filters of all partitions."""
BUFFER_BYTES = 32 << 20
"""What is not in files yet, of all partitions."""
PARTITION_BUFFER_BYTES = 16 << 20
OPEN_FILES = 256
"""For each partition."""
BLOCK_BYTES = 8 << 10
FILTER_BITS = 10
"""For each customer: one look-up of an unknown customer in a hundred touches the disk."""
WAITING_FILES = 200
"""A load may run ahead of compaction by so many files of a partition before it is slowed down."""


class MissingRocksError(InputError):
    """RocksDB is not installed."""


class StatesFolderError(InputError):
    """The folder for states cannot be used."""


class StatesFolderBusyError(TryAgainError):
    """Another worker has its states in the folder."""


class RocksFolder:
    """The folder of one worker's states; it is the worker's alone, and empty at the beginning.

    Raises MissingRocksError, StatesFolderError or StatesFolderBusyError.
    """

    def __init__(self, path: Path) -> None:
        try:
            import rocksdict
        except ImportError as error:
            raise MissingRocksError("--store rocksdict needs RocksDB: pip install 'streamseg[rocksdb]'") from error
        self.rocks: Any = rocksdict
        self._path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = (path / "lock").open("w")
            self._empty()
        except OSError as error:
            raise StatesFolderError(f"{path} cannot be used for states ({error}): correct --data") from error
        self.options = self._shared_options()

    def _empty(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StatesFolderBusyError(
                f"another worker has its states in {self._path}: wait until it has ended, or give each worker its "
                "own --data"
            ) from error
        for each in self._path.iterdir():
            if each.is_dir():
                shutil.rmtree(each)

    def _shared_options(self) -> Any:
        """Options of every partition's database: the cache and the buffers are bounded for all of them together."""
        rocks = self.rocks
        blocks = rocks.BlockBasedOptions()
        blocks.set_block_cache(rocks.Cache(CACHE_BYTES))
        blocks.set_block_size(BLOCK_BYTES)
        blocks.set_bloom_filter(FILTER_BITS, False)
        blocks.set_cache_index_and_filter_blocks(True)
        options = rocks.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_block_based_table_factory(blocks)
        options.set_write_buffer_manager(rocks.WriteBufferManager(BUFFER_BYTES, False))
        options.set_write_buffer_size(PARTITION_BUFFER_BYTES)
        options.set_compression_type(rocks.DBCompressionType.lz4())
        options.set_max_background_jobs(2)
        options.set_max_open_files(OPEN_FILES)
        options.set_level_zero_slowdown_writes_trigger(WAITING_FILES)
        options.set_level_zero_stop_writes_trigger(2 * WAITING_FILES)
        return options

    def open(self, partition: int) -> RocksStates:
        """An empty place for a partition's states."""
        return RocksStates(self, Path(tempfile.mkdtemp(prefix=f"{partition}-", dir=self._path)))


class RocksStates:
    """The states of one partition in a folder of their own."""

    def __init__(self, folder: RocksFolder, path: Path) -> None:
        self._folder = folder
        """Locked as long as this lives."""
        self._path = path
        self._database: Any = folder.rocks.Rdict(str(path), folder.options)
        self._unlogged: Any = folder.rocks.WriteOptions()
        self._unlogged.disable_wal = True

    def get(self, key: bytes) -> bytes | None:
        """The state of a customer."""
        found: bytes | None = self._database.get(key)
        return found

    def put(self, states: Mapping[bytes, bytes]) -> None:
        """Keeps many states."""
        batch = self._folder.rocks.WriteBatch(raw_mode=True)
        put = batch.put
        for key, data in states.items():
            put(key, data)
        self._database.write(batch, self._unlogged)

    def delete(self, key: bytes) -> None:
        """Forgets a customer."""
        self._database.delete(key, self._unlogged)

    def items(self) -> Iterable[tuple[bytes, bytes]]:
        """All customers and their states."""
        items: Iterable[tuple[bytes, bytes]] = self._database.items()
        return items

    def __iter__(self) -> Iterator[bytes]:
        keys: Iterator[bytes] = iter(self._database.keys())
        return keys

    def drop(self) -> None:
        """Closes the database and deletes its folder."""
        self._database.close()
        shutil.rmtree(self._path, ignore_errors=True)
