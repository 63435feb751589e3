"""The same job in other ways, each run by the harness as a process of its own."""
