"""Points at which a process can be made to die, to show that nothing is lost there.

A point is armed by a file of its name in the folder ``LETHE_CRASH_FOLDER``, which only the embedded
mode takes. Whoever reaches the point and removes the file kills itself with SIGKILL: nothing is
flushed, closed or rolled back. One file is one death. Without the folder, a point does nothing.
"""

import os
import signal
from enum import StrEnum

from app.settings import settings


class CrashPoint(StrEnum):
    """Each boundary at which a crash leaves something half done."""

    SUBMIT_BEFORE_COMMIT = "submit.before_commit"
    SUBMIT_BEFORE_NUDGE = "submit.before_nudge"
    SUBMIT_BEFORE_ANSWER = "submit.before_answer"
    CANCEL_BEFORE_COMMIT = "cancel.before_commit"
    CANCEL_AFTER_COMMIT = "cancel.after_commit"
    RETRY_AFTER_COMMIT = "retry.after_commit"
    CHECK_BEFORE_ACCEPT = "check.before_accept"
    PLAN_BEFORE_COMMIT = "plan.before_commit"
    PLAN_BEFORE_NUDGE = "plan.before_nudge"
    SWEEP_BEFORE_COMMIT = "sweep.before_commit"
    SWEEP_BEFORE_NUDGE = "sweep.before_nudge"
    SEQUENCE_BEFORE_COMMIT = "sequence.before_commit"
    CLAIM_BEFORE_COMMIT = "claim.before_commit"
    CLAIM_AFTER_COMMIT = "claim.after_commit"
    TRAINING = "training"
    RUNG_RECORDED = "rung.recorded"
    ARTIFACT_BEFORE_RENAME = "artifact.before_rename"
    ARTIFACT_WRITTEN = "artifact.written"
    PUBLISH_BEFORE_COMMIT = "publish.before_commit"
    PUBLISH_AFTER_COMMIT = "publish.after_commit"
    GIVE_BACK_BEFORE_COMMIT = "give_back.before_commit"
    RELEASE_BEFORE_COMMIT = "release.before_commit"


def reach(point: CrashPoint) -> None:
    """Die here if the point is armed."""
    folder = settings().crash_folder
    if folder is None:
        return
    try:
        # Of several processes that reach an armed point, one removes the file and dies.
        os.unlink(folder / point)
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
