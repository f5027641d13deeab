"""Looks at the whole setup, changes nothing, and says which command mends what is amiss.

One room for each group of findings; a group that cannot be looked at never keeps the next from it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from undrift.config import load_settings
from undrift.doctor.embedding import probe_embedder
from undrift.doctor.records import probe_records
from undrift.doctor.setup import probe_settings, versions
from undrift.doctor.sources import probe_source
from undrift.errors import UndriftError
from undrift.findings import Finding, Status, of_error

__all__ = ["Examination", "examine"]

GROUPS = ("configuration", "source", "store", "embedder")


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """Everything that was found, in the order of `GROUPS`."""

    findings: tuple[Finding, ...]

    def count(self, status: Status) -> int:
        """How many findings stand like that."""
        return sum(finding.status is status for finding in self.findings)

    @property
    def could_check(self) -> bool:
        """Whether ``undrift check`` would run, as far as was seen."""
        return not any(
            finding.status is Status.UNKNOWN
            or (finding.status is Status.PROBLEM and finding.stops_check)
            for finding in self.findings
        )

    @property
    def could_sync(self) -> bool:
        """Whether ``undrift sync`` would run, as far as was seen."""
        return not any(
            finding.status in (Status.UNKNOWN, Status.PROBLEM) for finding in self.findings
        )


def examine(
    config: str | Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    online: bool = False,
) -> Examination:
    """Look at configuration, source, store and embedder.

    Args:
        config: the configuration file; None means the usual one.
        environ: the environment; None means this process's.
        online: whether an embedder that is a service may be asked for one embedding.

    Safety:
        Reads only, but for a transaction in the store that is rolled back.
    """
    environment = os.environ if environ is None else environ
    findings = [versions()]
    try:
        settings = load_settings(config, environ=environment)
        findings.extend(probe_settings(settings, config, environment))
    except UndriftError as error:
        return _examination([*findings, of_error("configuration.settings", error)])
    embedder = probe_embedder(settings, online=online)
    findings.extend(embedder.findings)
    findings.extend(probe_source(settings))
    findings.extend(probe_records(settings, embedder))
    return _examination(findings)


def _examination(findings: Iterable[Finding]) -> Examination:
    ordered = sorted(findings, key=lambda finding: GROUPS.index(finding.group))
    return Examination(findings=tuple(ordered))
