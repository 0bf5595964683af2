"""Why something is not proven: one word for each way in which evidence can fail."""

from enum import StrEnum


class Reason(StrEnum):
    """A stable word for programs; the detail beside it is for people."""

    UNREADABLE = "unreadable"
    NOT_CANONICAL = "not-canonical"
    UNKNOWN_FORMAT = "unknown-format"
    RECEIPT_MALFORMED = "receipt-malformed"
    NOT_A_RECEIPT = "not-a-receipt"
    STATEMENT_MALFORMED = "statement-malformed"

    UNKNOWN_KEY = "unknown-key"
    WRONG_KEY_PURPOSE = "wrong-key-purpose"
    KEY_NOT_YET_VALID = "key-not-yet-valid"
    KEY_EXPIRED = "key-expired"
    BAD_SIGNATURE = "bad-signature"

    HEAD_MALFORMED = "head-malformed"
    HEAD_SIGNATURE = "head-signature"
    OTHER_LOG = "other-log"
    NOT_IN_THE_LOG = "not-in-the-log"

    ENTRY_MALFORMED = "entry-malformed"
    ENTRIES_MISSING = "entries-missing"
    ENTRIES_CONTRADICT = "entries-contradict"
    STATUS_CONTRADICTS = "status-contradicts"
    SAMPLES_CONTRADICT = "samples-contradict"
    SUBJECT_CONTRADICTS = "subject-contradicts"
    CHAIN_BROKEN = "chain-broken"
    NO_COMMITMENT = "no-commitment"
    COMMITMENT_CONTRADICTS = "commitment-contradicts"
    NOT_FORGOTTEN = "not-forgotten"
    WEIGHTS_DIFFER = "weights-differ"

    LOG_MALFORMED = "log-malformed"
    LOG_TRUNCATED = "log-truncated"
    LOG_UNCOVERED = "log-uncovered"
    LOG_ROOT_DIFFERS = "log-root-differs"
    LOG_FORKED = "log-forked"
    LOG_ROLLED_BACK = "log-rolled-back"
    LOG_CONTRADICTS = "log-contradicts"


class NotProven(Exception):
    """Evidence was refused; ``detail`` says by what, and quotes nothing of unchecked length."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
