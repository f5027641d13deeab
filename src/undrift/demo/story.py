"""The story: build, search, drift, check, repair, prove. It also judges its own ending.

Each step shows what a person would see and the command that does the same. The steps run through
the public API, on files that stay behind.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from undrift.api import Undrift
from undrift.demo import database
from undrift.demo.database import SOURCE_FILE, STORE_FILE, Drift, Planted, Profile
from undrift.demo.healing import tell_healing
from undrift.demo.telling import Teller, Write
from undrift.demo.wording import check_text, drift_of, hit_line, listed, sync_text
from undrift.embedders import open_embedder
from undrift.heal import NO_HEALING
from undrift.model import Cost, EntityId, Outcome, SearchResult, SyncReport, SyncStatus
from undrift.ports import Embedder

RenderCheck = Callable[[Sequence[SyncStatus]], str]
RenderSync = Callable[[Sequence[SyncReport]], str]

SEMANTIC = "local"
"""The embedder whose searches are known to find what they should."""

_INDENT = "     "


@dataclass(frozen=True, slots=True)
class Question:
    """A search that shares no content word with what it is meant to find.

    Attributes:
        remark: what one would not see at a glance.
    """

    owner_id: str
    query: str
    finds: EntityId
    remark: str = ""


MONEY_BACK = Question("101", "customers who wanted their money back", EntityId.of("project", "p_2"))
REFUGEES = Question(
    "107",
    "helping refugees fill in forms",
    EntityId.of("experience", "exp_2"),
    "the career is in Spanish",
)
PRACTICES = Question("101", "software for medical practices", EntityId.of("experience", "exp_3"))
NIGHT_SKY = Question(
    "131", "looking at the night sky", EntityId.of("project", "p_3"), "in the rewritten project"
)
MOTH = Question(
    "133", "an insect and a lamp", EntityId.of("project", "p_3"), "in an imported profile"
)


def run(
    folder: Path,
    *,
    write: Write,
    render_check: RenderCheck | None = None,
    render_sync: RenderSync | None = None,
    embedder: str = SEMANTIC,
) -> int:
    """Tell the story in *folder*, and leave its files there.

    Args:
        folder: new, empty, or an earlier run's, which starts afresh.
        write: is given text in whole lines, with their ends.
        render_check: the text of a check's result; None means a short one.
        render_sync: the text of a sync's result; None means a short one.
        embedder: with ``hashing`` the searches run, but do not understand anything.

    Returns:
        0 if everything came out as it must: the drift that was planted was found, all of it and
        nothing else, the repair embedded what had changed and no more, and the last check is
        clean. Otherwise 1, and the differences were written.

    Raises:
        ConfigError: the folder is somebody else's, or the embedder is not installed.
    """
    is_again = database.prepare_folder(folder)
    model = open_embedder(embedder)
    with Undrift(
        source=f"sqlite:///{folder / SOURCE_FILE}",
        store=f"sqlite:///{folder / STORE_FILE}",
        embedder=model,
        heal=NO_HEALING,  # nothing is to be mended before it was shown
    ) as undrift:
        story = _Story(
            folder=folder,
            undrift=undrift,
            embedder=embedder,
            model=model,
            write=write,
            render_check=render_check or check_text,
            render_sync=render_sync or sync_text,
        )
        story.open(is_again=is_again)
        story.create_database()
        story.embed_everything()
        story.search()
        story.drift()
        story.search_over_the_drift()
        story.check()
        story.repair()
        story.prove()
        story.heal()
        return story.end()


@dataclass(kw_only=True)
class _Story(Teller):
    """The steps, in order, and what they leave for the later ones.

    Attributes:
        embedder: by name.
        model: the same, ready to embed.
        planted: what was done behind undrift's back.
    """

    folder: Path
    undrift: Undrift
    embedder: str
    model: Embedder
    render_check: RenderCheck
    render_sync: RenderSync
    profiles: Sequence[Profile] = field(default_factory=database.load_profiles)
    planted: list[Planted] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    # --- the steps ----------------------------------------------------------------------------

    def open(self, *, is_again: bool) -> None:
        """Say what this is, and where."""
        self.say("undrift demo: careers, their vectors, and what drives the two apart.", "")
        if is_again:
            self.say(f"An earlier run's files in {self.folder} were removed.")
        self.say(f"Everything happens in {self.folder}. The commands below do the same there:")
        self.say(*self.commands_to_enter(), "")
        self.say("On your own data, DATABASE_URL names your database, VECTOR_URL your vectors.")

    def create_database(self) -> None:
        """A relational database, most of the profiles in it."""
        first = self.profiles[: -database.IMPORTED]
        database.create_source(self.folder, first)
        self.headline("A database of careers")
        self.say(f"{len(first)} people of many trades and languages, one JSON document each:")
        self.say("  profiles(user_id, filtered_data)", "")
        self.say(f"Experiences, projects, updates, education, skills: {_things(first)} in all.")

    def embed_everything(self) -> None:
        """The first sync writes a vector for every entity."""
        self.headline("Every one of them becomes a vector", "undrift sync --all")
        started = time.perf_counter()
        reports = list(self.undrift.sync_all())
        seconds = time.perf_counter() - started
        written, embedded = _written(reports), _embedded(reports)
        setup = self.undrift.describe()
        self.say(self.render_sync(reports), "")
        self.say(f"{written} vectors from {embedded} different texts, in {seconds:.1f} s.")
        self.say(f"Model: {setup.model}", *setup.notices)
        self.require_all_in_sync(reports)
        expected = _things(self.profiles[: -database.IMPORTED])
        self.require(written == expected, f"{written} vectors were written, not {expected}")

    def search(self) -> None:
        """Searches that find by meaning, one across languages."""
        self.headline("Search by meaning: query and find share no word")
        self.find(MONEY_BACK)
        self.find(REFUGEES)
        self.find(PRACTICES)
        if self.embedder == SEMANTIC:
            self.say(
                "",
                "(This model was trained on English; what it finds across languages is a bonus.)",
            )
        else:
            self.say("", f"(What {self.embedder} finds here means nothing.)")

    def drift(self) -> None:
        """Change both sides behind undrift's back."""
        self.headline("Life goes on, and nobody tells the vectors")
        self.say("In the database (app.db), by plain SQL:", "")
        self.plant(database.drift_source(self.folder))
        newcomers = self.profiles[-database.IMPORTED :]
        expected = self.expected_of_import(newcomers)
        database.insert_profiles(self.folder, newcomers)
        self.plant(expected)
        self.say("", "In the vectors (.undrift/undrift.db), by plain SQL:", "")
        self.plant(database.drift_store(self.folder))

    def search_over_the_drift(self) -> None:
        """What is gone is not found, even before the repair."""
        self.headline("Before any repair: a search never returns what is gone")
        result = self.find(PRACTICES, is_there=False)
        for entity_id in result.stale_ids:
            self.say(f"{_INDENT}withheld: {entity_id}, still among the vectors")
        self.say("", "New content waits for the repair:")
        self.find(NIGHT_SKY, is_there=False)
        owner = database.PROFILE_DELETED.owner_id
        deleted = self.ask(owner, "anything at all")
        self.say("", f"Of the deleted user {owner}: {len(deleted.hits)} hits, whatever one asks.")
        self.require(not deleted.hits, "a search returned something of the deleted profile")

    def check(self) -> None:
        """The check finds what was planted, and nothing else."""
        self.headline("The check finds each of these, and nothing else", "undrift check --all")
        statuses = list(self.undrift.check_all())
        shown = [_status_of(statuses, owner) for owner in ("132", "113")]
        out_of_sync = sum(not status.is_in_sync for status in statuses)
        self.say(f"{len(statuses)} users checked, {out_of_sync} of them out of sync. Two in full:")
        self.command("undrift check --user-id 132 --user-id 113")
        self.say(self.render_check([status for status in shown if status is not None]), "")
        self.say("Done behind its back, and found:", "")
        self.compare(statuses)

    def repair(self) -> None:
        """The repair costs what has changed."""
        self.headline("Repair, at the cost of the difference", "undrift sync --all --dry-run")
        plan = sum((report.cost for report in self.undrift.plan(None)), start=Cost())
        self.say(f"{plan.texts} texts to embed, {plan.writes} writes, {plan.deletes} deletes")
        self.command("undrift sync --all")
        started = time.perf_counter()
        reports = list(self.undrift.sync_all())
        seconds = time.perf_counter() - started
        embedded, needed = _embedded(reports), database.count_texts(self.folder, self.planted)
        self.say(self.render_sync(reports), "")
        self.say(
            f"{embedded} texts embedded in {seconds:.1f} s; building everything anew would embed "
            f"{database.count_texts(self.folder)}."
        )
        self.require_all_in_sync(reports)
        self.require(
            embedded == needed == plan.texts,
            f"{embedded} texts were embedded, {plan.texts} were planned, {needed} were needed",
        )

    def prove(self) -> None:
        """A second check, and searches that find the new content."""
        self.headline("The proof", "undrift check --all")
        statuses = list(self.undrift.check_all())
        self.say(self.render_check(statuses))
        in_sync = sum(status.is_in_sync for status in statuses)
        self.require(
            in_sync == len(statuses) == len(self.profiles) - 1,
            f"{in_sync} of {len(statuses)} users are in sync, not {len(self.profiles) - 1}",
        )
        results = [self.find(NIGHT_SKY), self.find(MOTH), self.find(PRACTICES, is_there=False)]
        for result in results:
            has_drift = result.stale_ids or any(hit.changed for hit in result.hits)
            self.require(not has_drift, f"a search of user {result.owner_id} still met drift")

    def heal(self) -> None:
        """A tool repairs by itself what it meets."""
        tell_healing(self, self.folder, self.model, is_semantic=self.embedder == SEMANTIC)

    def end(self) -> int:
        """The verdict, and what to do next."""
        seconds = time.perf_counter() - self.started
        self.headline(f"The end, after {seconds:.1f} s")
        for problem in self.problems:
            self.say(f"❌ {problem}")
        if self.problems:
            return 1
        self.say("✅ Everything planted was found, repaired at its own price, and proved.", "")
        self.say("Left for you to play with:")
        self.say(f"  {self.folder / SOURCE_FILE}  (the careers)")
        self.say(f"  {self.folder / STORE_FILE}  (their vectors)", "", *self.commands_to_enter())
        self.say(
            '  sqlite3 app.db "DELETE FROM profiles WHERE user_id = 120"   # break something',
            "  undrift check --all                                         # see it",
            "  undrift sync --all                                          # repair it",
        )
        return 0

    # --- parts of steps -----------------------------------------------------------------------

    def plant(self, planted: Iterable[Planted]) -> None:
        """Remember and tell what was done."""
        for what, same in groupby(planted, key=lambda one: one.what):
            group = list(same)
            self.planted.extend(group)
            self.say(f"  {what} (user {', '.join(one.owner_id for one in group)})")
            self.say(*(textwrap.indent(one.sql, "      ") for one in group if one.sql))

    def expected_of_import(self, newcomers: Sequence[Profile]) -> list[Planted]:
        """The ids of profiles that are not in the database yet: all of them, over no store."""
        nowhere = (self.folder / STORE_FILE).with_name("none.db")
        with Undrift(store=f"sqlite:///{nowhere}", embedder=self.embedder) as undrift:
            planted = [
                database.imported(row, undrift.check(row.user_id, profile=row.document).missing_ids)
                for row in newcomers
            ]
        for row, one in zip(newcomers, planted, strict=True):
            self.require(
                len(one.ids) == row.entity_count,
                f"user {row.user_id} has {len(one.ids)} entities, not {row.entity_count}",
            )
        return planted

    def compare(self, statuses: Sequence[SyncStatus]) -> None:
        """Hold what the check found against what was planted."""
        found = {finding for status in statuses for finding in _findings(status)}
        for one in self.planted:
            expected = {(one.owner_id, one.drift, entity_id) for entity_id in one.ids}
            is_found = bool(expected) and expected <= found
            sign = "✅" if is_found else "❌"
            self.say(f"{sign} user {one.owner_id}: {one.drift} {listed(one.ids)}")
            self.require(is_found, f"not found: {one.what} (user {one.owner_id})")
            found -= expected
        for owner_id, drift, entity_id in sorted(found):
            self.require(False, f"never planted, yet found: user {owner_id}: {drift} {entity_id}")
        for status in statuses:
            is_known = status.outcome in (Outcome.IN_SYNC, Outcome.DRIFT)
            self.require(is_known, f"user {status.owner_id} is {status.outcome}")

    def find(self, question: Question, *, is_there: bool = True) -> SearchResult:
        """Ask, show the best hits, and require of a semantic model that it finds what is there."""
        result = self.ask(question.owner_id, question.query)
        best = result.hits[0].key if result.hits else None
        if self.embedder == SEMANTIC:
            problem = f"the search for “{question.query}” found {best} first"
            self.require((best == question.finds) == is_there, problem)
        remark = f"   # {question.remark}" if question.remark else ""
        query = shlex.quote(question.query)
        self.command(f"undrift search --user-id {question.owner_id} {query}{remark}")
        for hit in result.hits[:2]:
            self.say(_INDENT + hit_line(hit))
        return result

    def ask(self, owner_id: str, query: str) -> SearchResult:
        """Search, and require that nothing comes back that the database does not have."""
        result = self.undrift.search(owner_id, query)
        gone = {
            (one.owner_id, entity_id)
            for one in self.planted
            if one.drift is Drift.STALE
            for entity_id in one.ids
        }
        for hit in result.hits:
            self.require((owner_id, hit.key) not in gone, f"a search returned {hit.key}, gone")
        return result

    def require_all_in_sync(self, reports: Iterable[SyncReport]) -> None:
        """Every owner of a sync must be proved to be in sync."""
        for report in reports:
            reason = f": {report.error}" if report.error is not None else ""
            problem = f"user {report.owner_id} is {report.outcome} after a sync{reason}"
            self.require(report.is_in_sync, problem)

    # --- writing ------------------------------------------------------------------------------

    def commands_to_enter(self) -> list[str]:
        """What to type before the commands work."""
        variables = f"DATABASE_URL=sqlite:///{SOURCE_FILE} VECTOR_URL=sqlite:///{STORE_FILE}"
        if self.embedder != SEMANTIC:
            variables += f" UNDRIFT_EMBEDDER={self.embedder}"
        lines = [f"  cd {shlex.quote(str(self.folder))}", f"  export {variables}"]
        if shutil.which("undrift") is None:
            programs = Path(sys.executable).parent  # an environment that is not activated
            lines.append(f"  export PATH={shlex.quote(str(programs))}:$PATH")
        return lines


# --- small questions --------------------------------------------------------------------------


def _findings(status: SyncStatus) -> set[tuple[str, Drift, EntityId]]:
    return {
        (status.owner_id, drift, entity_id) for drift, ids in drift_of(status) for entity_id in ids
    }


def _status_of(statuses: Iterable[SyncStatus], owner_id: str) -> SyncStatus | None:
    return next((status for status in statuses if status.owner_id == owner_id), None)


def _things(profiles: Iterable[Profile]) -> int:
    return sum(profile.entity_count for profile in profiles)


def _written(reports: Iterable[SyncReport]) -> int:
    return sum(report.written for report in reports)


def _embedded(reports: Iterable[SyncReport]) -> int:
    return sum(report.embedded for report in reports)
