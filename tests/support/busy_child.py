"""An application that writes profiles on schedule, or a loop that syncs them; a process each.

Reads one job, a line of JSON, from standard input; says that it is ready; works until the job's
time is over; writes its journal as a line of JSON. Times are of the clock that all processes of
the machine share.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import psycopg

from support.layouts import experience
from support.sides import NAMESPACE, ORIGIN, CountingEmbedder
from undrift import Undrift
from undrift.sources import open_source
from undrift.stores import open_store

MAX_ENTRIES = 6
BATCH = 20


def write_profiles(job: Mapping[str, Any]) -> list[list[object]]:
    """Insert, edit and delete entries of profiles, so many a second, each in a transaction.

    Returns:
        Of each write its owner, and when it began and was committed.
    """
    random, owners = Random(7), job["owners"]
    documents: dict[str, dict[str, Any]] = job["documents"]
    journal: list[list[object]] = []
    update = "UPDATE profiles SET filtered_data = %s WHERE user_id = %s"
    with psycopg.connect(job["url"]) as connection:
        ready()
        begin = time.monotonic()
        while (due := begin + len(journal) / job["per_second"]) < begin + job["seconds"]:
            time.sleep(max(0.0, due - time.monotonic()))
            owner = owners[len(journal) % len(owners)]
            entries: list[dict[str, Any]] = documents[owner]["experiences"]
            change(entries, len(journal), random)
            started = time.monotonic()
            # What is never committed is never seen: in between, the profile is no document.
            connection.execute(update, ["[]", owner])
            connection.execute(update, [json.dumps(documents[owner]), owner])
            connection.commit()
            journal.append([owner, started, time.monotonic()])
    return journal


def change(entries: list[dict[str, Any]], number: int, random: Random) -> None:
    """Insert an entry, delete one, or edit one; edits come back to what was there before."""
    choice = random.choice(("insert", "delete", "edit", "edit"))
    if choice == "insert" and len(entries) < MAX_ENTRIES:
        entries.append(experience(f"new_{number}"))
    elif choice == "delete" and len(entries) > 1:
        del entries[random.randrange(len(entries))]
    else:
        edited = random.choice(entries)
        is_edited = edited["description"] == "Edited"
        edited["description"] = "Keeps books" if is_edited else "Edited"


def sync_profiles(job: Mapping[str, Any]) -> list[list[object]]:
    """Sync the owners, a batch after the other, again and again.

    Returns:
        Of each sync its owner, when its batch began, when it was reported, and the outcome.
    """
    owners: Sequence[str] = job["owners"]
    sides = Undrift(
        source=open_source(job["url"], ORIGIN, job["fields"] or ()),
        store=open_store(job["url"], namespace=NAMESPACE),
        embedder=CountingEmbedder(),
        mapping=ORIGIN,
    )
    journal: list[list[object]] = []
    with sides:
        ready()
        end = time.monotonic() + job["seconds"]
        while time.monotonic() < end:
            for first in range(0, len(owners), BATCH):
                started = time.monotonic()
                for report in sides.sync_owners(owners[first : first + BATCH]):
                    ended = time.monotonic()
                    journal.append([report.owner_id, started, ended, report.outcome.value])
    return journal


def ready() -> None:
    """Say that the work begins."""
    print("ready", flush=True)


if __name__ == "__main__":
    asked = json.loads(sys.stdin.readline())
    work = write_profiles if asked["per_second"] else sync_profiles
    print(json.dumps(work(asked)), flush=True)
