"""A worker that lets few assignments wait for Redis. Run as a module in place of streamseg."""

from streamseg.worker import redis_view

redis_view.BACKLOG = 100

if __name__ == "__main__":
    from streamseg.cli import main

    main()
