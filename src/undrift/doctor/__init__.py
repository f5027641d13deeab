"""Looks at the whole setup, changes nothing, and says which command mends what is amiss.

One room for each group of findings; a group that cannot be looked at never keeps the next from it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from undrift.config import load_settings
from undrift.doctor.embedding import probe_embedder
from undrift.doctor.records import probe_records
from undrift.doctor.setup import probe_settings, versions
from undrift.doctor.sources import probe_source
from undrift.doctor.state import probe_state
from undrift.errors import UndriftError
from undrift.findings import Finding, Status, of_error, ok

__all__ = ["Examination", "examine"]

GROUPS = ("configuration", "source", "store", "state", "embedder")


READS_ONLY = "undrift doctor --read-only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """Everything that was found, in the order of `GROUPS`.

    Attributes:
        found: as the probes found it.
        is_read_only: judge it for a role that only checks and searches.
    """

    found: tuple[Finding, ...]
    is_read_only: bool = False

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found, judged by what the role is for."""
        judged = _for_reader if self.is_read_only else _for_writer
        return tuple(judged(finding) for finding in self.found)

    def count(self, status: Status) -> int:
        """How many findings stand like that."""
        return sum(finding.status is status for finding in self.findings)

    @property
    def could_check(self) -> bool:
        """Whether ``undrift check`` would run, as far as was seen."""
        return not any(_is_amiss(finding) and finding.stops_check for finding in self.found)

    @property
    def could_sync(self) -> bool:
        """Whether ``undrift sync`` would run, as far as was seen."""
        return not any(map(_is_amiss, self.found))


def examine(
    config: str | Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    online: bool = False,
    read_only: bool = False,
) -> Examination:
    """Look at configuration, source, store, state and embedder.

    Args:
        config: the configuration file; None means the usual one.
        environ: the environment; None means this process's.
        online: whether an embedder that is a service may be asked for one embedding.
        read_only: judge as a role that only checks and searches; looks at the same.

    Safety:
        Reads only, but for a transaction in the store that is rolled back.
    """
    environment = os.environ if environ is None else environ
    findings = [versions()]
    try:
        settings = load_settings(config, environ=environment)
        findings.extend(probe_settings(settings, config, environment))
    except UndriftError as error:
        findings.append(of_error("configuration.settings", error))
        return _examination(findings, read_only=read_only)
    embedder = probe_embedder(settings, online=online)
    findings.extend(embedder.findings)
    findings.extend(probe_source(settings))
    findings.extend(probe_records(settings, embedder))
    if not any(_is_amiss(finding) and finding.stops_check for finding in findings):
        findings.extend(probe_state(settings))
    return _examination(findings, read_only=read_only)


def _examination(findings: Iterable[Finding], *, read_only: bool) -> Examination:
    ordered = sorted(findings, key=lambda finding: GROUPS.index(finding.group))
    return Examination(found=tuple(ordered), is_read_only=read_only)


# --- what a finding is to whom ----------------------------------------------------------------


def _is_amiss(finding: Finding) -> bool:
    return finding.status in (Status.PROBLEM, Status.UNKNOWN)


def _for_writer(finding: Finding) -> Finding:
    """What only a sync lacks says so first: its fix would make a writer of a reader."""
    if finding.status is not Status.PROBLEM or not _is_of_sync(finding):
        return finding
    summary = (
        f"That is fine for a role that only checks (`{READS_ONLY}`), but no sync can run: "
        f"{finding.summary}"
    )
    return replace(finding, summary=summary, fix=f"to sync, {finding.fix}")


def _for_reader(finding: Finding) -> Finding:
    """What only a sync lacks is nothing amiss; a search needs an embedder that works."""
    if not _is_amiss(finding) or finding.stops_check:
        return finding
    if _is_of_sync(finding):
        return ok(finding.name, f"Not needed to check: {finding.summary}")
    summary = f"A check needs no embedder, a search does: {finding.summary}"
    return replace(finding, status=Status.WARNING, summary=summary)


def _is_of_sync(finding: Finding) -> bool:
    return not finding.stops_check and finding.group in ("source", "store", "state")
