"""The state folder: its locks, its secrets and its keys."""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from embedded.errors import FolderRefused
from embedded.files import write_atomically
from embedded.operator_key import DIGEST, digest_of
from embedded.signing_keys import ensure_signing_keys

DEFAULT_FOLDER = Path(".lethe")
SECRETS_FILE = "secrets.json"
# The members of it that say whose key is the operator's; earlier releases had the key itself.
KEY_DIGEST, PLAIN_KEY = "api_key_digest", "api_key"
# Longer than any program's grace period: after a SIGKILL the programs of the last run may still be
# on their way out, and the folder is theirs until they are gone.
PREDECESSOR_SECONDS = 40.0


@dataclass(frozen=True, slots=True, repr=False)
class Secrets:
    """What the state folder's owner alone may read."""

    id_key: str
    database_password: str
    database_admin_password: str
    broker_password: str
    api_key_digest: str = ""  # empty until a start has shown the key


@dataclass(frozen=True, slots=True)
class Claim:
    """A state folder that is this process's own until it ends."""

    folder: Path
    logs: Path
    secrets: Secrets
    lock: int  # a file descriptor; each program inherits it, see hold()
    created: bool  # just now, by us


def generate() -> Secrets:
    """New secrets, for a new folder."""
    return Secrets(
        id_key=secrets.token_hex(32),
        database_password=secrets.token_urlsafe(32),
        database_admin_password=secrets.token_urlsafe(32),
        broker_password=secrets.token_urlsafe(32),
    )


def load_secrets(folder: Path) -> Secrets:
    """Read the folder's secrets, or make them when there are none; damaged ones are refused."""
    path = folder / SECRETS_FILE
    if not path.exists():
        if (folder / "data").exists():
            raise FolderRefused(
                f"{path} is gone, but the data that it belongs to are still in {folder / 'data'}. "
                "Restore the file, or move the folder away to start with an empty service."
            )
        write_atomically(path, json.dumps(asdict(generate()), indent=2) + "\n")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        needed = [field.name for field in fields(Secrets) if field.name != KEY_DIGEST]
        if not all(isinstance(found[name], str) and found[name] for name in needed):
            raise ValueError("a secret is empty or not a text")
        kept = {name: found[name] for name in needed}
        loaded = Secrets(**kept, api_key_digest=_key_digest(found))
    except PermissionError as error:
        raise FolderRefused(f"{path} belongs to another user: run as that one") from error
    except (ValueError, KeyError, TypeError) as error:
        raise FolderRefused(
            f"{path} is damaged ({type(error).__name__}). It is not made anew, because a new "
            "id_key would orphan every digest stored so far: no record could be found again for a "
            "sample ID. Restore the file from a copy, or move the folder away to start empty."
        ) from None  # the cause could quote the file
    return loaded


def keep_key_digest(folder: Path, digest: str) -> None:
    """Let another key be the operator's, in one step; nobody else may hold the folder."""
    path = folder / SECRETS_FILE
    record = json.loads(path.read_text(encoding="utf-8"))
    record.pop(PLAIN_KEY, None)
    # To whom it belongs: root may do this for somebody who could not read the file any more.
    owner = path.stat()
    text = json.dumps({**record, KEY_DIGEST: digest}, indent=2) + "\n"
    write_atomically(path, text, (owner.st_uid, owner.st_gid))


def _key_digest(record: Mapping[str, object]) -> str:
    if PLAIN_KEY in record:
        key = record[PLAIN_KEY]
        if not isinstance(key, str) or not key:
            raise ValueError("the operator's key is empty or not a text")
        return digest_of(key)
    digest = record.get(KEY_DIGEST, "")
    if not isinstance(digest, str) or not (digest == "" or DIGEST.fullmatch(digest)):
        raise ValueError("the digest of the operator's key is not one")
    return digest


def create(folder: Path) -> bool:
    """Make the folder, open to its owner only; true when it was not there."""
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        return False
    except OSError as error:
        raise FolderRefused(f"{folder} cannot be made: {error.strerror}") from error
    return True


@contextmanager
def claim(folder: Path) -> Iterator[Claim]:
    """Make the folder if need be, claim it for this process, read its secrets, see to its keys."""
    folder = folder.resolve()
    created = create(folder)
    with hold(folder) as lock:
        loaded = load_secrets(folder)
        _forget_plain_key(folder, loaded)
        ensure_signing_keys(folder, folder / SECRETS_FILE)
        logs = folder / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        yield Claim(folder, logs, loaded, lock, created)


def _forget_plain_key(folder: Path, loaded: Secrets) -> None:
    if PLAIN_KEY in json.loads((folder / SECRETS_FILE).read_text(encoding="utf-8")):
        keep_key_digest(folder, loaded.api_key_digest)


@contextmanager
def hold(folder: Path) -> Iterator[int]:
    """Claim the folder for this process; yields a lock that its programs have to inherit.

    Two locks: the kernel drops the first with this process, and the second with the last of the
    programs that inherited it. So a folder in use is refused at once, while a start right after a
    crash waits for what the crashed process had started.
    """
    with open_lock(folder / "lock") as mine, open_lock(folder / "programs.lock") as programs:
        try:
            fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderRefused(
                f"{folder} is in use: the service already runs on it. Stop it, or choose another "
                "folder."
            ) from None
        wait_for_predecessor(programs, folder)
        yield programs


@contextmanager
def open_lock(path: Path) -> Iterator[int]:
    """Open a lock file; closing it is what unlocks."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise FolderRefused(f"{path} cannot be opened: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def wait_for_predecessor(programs: int, folder: Path) -> None:
    """Wait until the programs of an earlier run, told to stop already, are gone."""
    deadline, pause = time.monotonic() + PREDECESSOR_SECONDS, 0.005
    while True:
        try:
            fcntl.flock(programs, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise FolderRefused(
                    f"{folder} is in use: programs of an earlier run have not ended. "
                    f"See who holds {folder / 'programs.lock'}."
                ) from None
            time.sleep(pause)  # flock has no time limit of its own
            pause = min(pause * 2, 0.1)
        else:
            return
