"""Engines that have pages checked and synced by other processes, here or on other machines.

`cluster` reaches a Ray cluster, `tasks` calls functions on its machines, and `orders` says what
they are to open. `on_ray` checks there, by `worker`; `sync_on_ray` syncs there, by `sync_worker`
and, for the vectors, `embedding`. `sync_in_processes` syncs on this machine. `passes` and `budget`
are what both syncs have in common. Ray is imported when a cluster is asked for.
"""
