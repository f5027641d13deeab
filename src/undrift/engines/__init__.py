"""Engines that check pages on other machines; those of this one are in `undrift.scan.engine`.

`cluster` reaches a Ray cluster, `on_ray` has pages checked there, and `worker` is what runs on its
machines. Ray is imported when a cluster is asked for.
"""
