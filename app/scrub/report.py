"""What a scrub found, in words for an operator and as JSON for a program."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.scrub.leftovers import Leftover
from app.scrub.rows import Need, Role

PUT_BACK = "put it back from a backup, or upload the same bytes again (POST /v1/checkpoints)"
ADVICE = {
    Role.CURRENT: f"{PUT_BACK}. Until then jobs fail, and downloads are bad",
    Role.CHECKPOINT: f"{PUT_BACK}. Otherwise the model is rejected",
    Role.LEDGER: "nothing: jobs compute without it, slower, and the next version gets a new one",
    Role.WITHDRAWN: "nothing at once: it is not served and no job starts from it; look at the disk",
}


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that a row asks for and that is not as it should be."""

    need: Need
    path: Path
    fault: str


@dataclass(frozen=True, slots=True)
class Report:
    """All that a scrub found; paths are relative to the folder when they are shown."""

    folder: Path
    files: int
    """Files that rows ask for, each counted once."""
    size_bytes: int
    damaged: tuple[Damage, ...]
    """The most urgent first."""
    audit_problems: tuple[str, ...]
    leftovers: tuple[Leftover, ...]
    """Those that are nobody's work, by their age or because they were purged."""
    young: int
    """Further ones, which may belong to work under way."""
    older_than: timedelta
    foreign: tuple[Path, ...]

    @property
    def is_clean(self) -> bool:
        """Whether nothing is damaged, and whatever was to be removed is gone."""
        return not (self.damaged or self.audit_problems or any(x.error for x in self.leftovers))


def lines(report: Report) -> Iterator[str]:
    """Say what was found, one thing a line, the most urgent first."""
    yield f"store {report.folder}"
    for damage in report.damaged:
        yield from _damage_lines(report, damage)
    for problem in report.audit_problems:
        yield f"AUDIT LOG DAMAGED: {problem}"
        yield "  do      keep the database as it is, and compare it with a backup"
    for leftover in report.leftovers:
        yield _leftover_line(report, leftover)
    if report.young:
        hours = report.older_than.total_seconds() / 3600
        yield f"leftovers younger than {hours:g} h, perhaps of work under way: {report.young}"
    if report.foreign:
        names = ", ".join(_relative(report, path) for path in report.foreign[:3])
        yield f"{len(report.foreign)} entries are not the store's and were left alone: {names}"
    yield _summary(report)


def as_json(report: Report) -> dict[str, Any]:
    """Return the same as one JSON object."""
    return {
        "clean": report.is_clean,
        "folder": str(report.folder),
        "checked": {"files": report.files, "bytes": report.size_bytes},
        "damaged": [
            {
                "role": damage.need.role,
                "model": damage.need.model,
                "version": damage.need.version,
                "digest": damage.need.digest,
                "path": _relative(report, damage.path),
                "fault": damage.fault,
                "advice": ADVICE[damage.need.role],
            }
            for damage in report.damaged
        ],
        "audit_problems": list(report.audit_problems),
        "leftovers": [
            {
                "kind": leftover.kind,
                "path": _relative(report, leftover.path),
                "bytes": leftover.size_bytes,
                "modified_at": leftover.modified_at.isoformat(),
                "removed": leftover.removed,
                "error": leftover.error,
            }
            for leftover in report.leftovers
        ],
        "young_leftovers": report.young,
        "foreign": [_relative(report, path) for path in report.foreign],
    }


def _damage_lines(report: Report, damage: Damage) -> Iterator[str]:
    need = damage.need
    where = need.role if need.version is None else f"{need.role} {need.version}"
    if need.role is Role.LEDGER:
        where = f"{need.role} of version {need.version}"
    loud = "MODEL DAMAGED" if need.role is Role.CURRENT else "damaged"
    yield f"{loud}: {need.model}, {where}: its file {damage.fault}"
    yield f"  file    {_relative(report, damage.path)}"
    yield f"  digest  {need.digest}"
    yield f"  do      {ADVICE[need.role]}"


def _leftover_line(report: Report, leftover: Leftover) -> str:
    done = "removed" if leftover.removed else "left"
    if leftover.error:
        done = f"NOT REMOVED: {leftover.error}"
    written = leftover.modified_at.isoformat(timespec="seconds")
    path = _relative(report, leftover.path)
    return f"{leftover.kind}: {path}, {leftover.size_bytes} bytes of {written}: {done}"


def _summary(report: Report) -> str:
    audit = "DAMAGED" if report.audit_problems else "whole"
    left = sum(not leftover.removed for leftover in report.leftovers)
    summary = (
        f"{report.files} files checked, {report.size_bytes} bytes: {len(report.damaged)} damaged; "
        f"audit log {audit}; leftovers: {left}"
    )
    if left and not any(leftover.error for leftover in report.leftovers):
        summary += " (--remove-leftovers removes them: they may hold what was to be forgotten)"
    return summary


def _relative(report: Report, path: Path) -> str:
    return str(path.relative_to(report.folder))
