"""A worker that lets few assignments wait for Redis. Run as a module in place of streamseg."""

from streamseg.worker import compiled, partition, redis_view

redis_view.BACKLOG = 100
partition.Partition.group_events = compiled.CompiledPartition.group_events = 500
partition.FOLD_EVENTS = compiled.FOLD_EVENTS = 500

if __name__ == "__main__":
    from streamseg.cli import main

    main()
