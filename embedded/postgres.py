"""The private PostgreSQL."""

import os
import shutil
import time
from pathlib import Path

import psycopg
from psycopg import sql

from embedded.errors import FolderRefused, ProgramFailed
from embedded.files import write_atomically
from embedded.server import HOST, START_SECONDS, Server, Site

ADMIN = "lethe_admin"  # initdb's superuser; the service itself is none
ROLE = "lethe"
DATABASE = "lethe"
INVALID_PASSWORD = "28P01"  # an SQLSTATE  # noqa: S105


def settings(port: int | None, durable: bool) -> dict[str, str]:
    """What differs from PostgreSQL's defaults."""
    chosen = {
        "listen_addresses": HOST,
        "port": str(port),
        "unix_socket_directories": "",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] ",
    }
    if not durable:
        # A crash of the machine loses everything; a crash of PostgreSQL alone loses nothing, except
        # for synchronous_commit, where it loses the last commits.
        chosen |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    return chosen


def process_in(folder: Path, pid: int) -> bool:
    """Whether a process works in a folder, as a postmaster does in its data folder."""
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd")) == folder
    except OSError:  # no such process, or somebody else's, who cannot be in a 0700 folder of ours
        return False


class Postgres(Server):
    """A PostgreSQL that listens on the loopback interface and wants passwords."""

    name = "postgres"
    # "Fast": open transactions are rolled back. SIGTERM would wait for pooled connections for ever.
    stop_signal = "INT"
    ready_line = "database system is ready to accept connections"

    def __init__(self, site: Site) -> None:
        """Does not start it."""
        super().__init__(site)
        self.folder = site.placement.data / "postgres"

    @property
    def url(self) -> str:
        """Where the service finds its database, password included."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """The same for another database on this server."""
        password = self.site.claim.secrets.database_password
        return f"postgresql+psycopg://{ROLE}:{password}@{HOST}:{self.port}/{database}"

    def prepare(self) -> None:
        """Make the data folder when there is none; clear what a SIGKILL left in it."""
        if not self.folder.exists():
            self._initialise()
        self._remove_stale_pid_file()

    def command(self) -> list[str]:
        """The settings travel here, so that a later version of ours can change them."""
        command = [str(self.site.placement.binaries.postgres / "postgres"), "-D", str(self.folder)]
        for name, value in settings(self.port, self.site.durable).items():
            command += ["-c", f"{name}={value}"]
        return command

    def answers(self) -> bool:
        """Log in, and see that the data folder is ours."""
        try:
            with self.connect_as_admin() as connection:
                row = connection.execute("SHOW data_directory").fetchone()
                if row is None or not os.path.samefile(row[0], self.folder):
                    return False
                self._ensure_database(connection)
                return True
        except psycopg.OperationalError as error:
            if error.sqlstate == INVALID_PASSWORD or "password authentication" in str(error):
                raise FolderRefused(
                    f"the data in {self.folder} were made with other secrets than those in the "
                    "state folder. Restore the secrets.json that belongs to them."
                ) from error
            return False

    def connect_as_admin(self, database: str = "postgres") -> psycopg.Connection:
        """Connect as the superuser; each statement is a transaction of its own."""
        return psycopg.connect(
            host=HOST,
            port=self.port,
            user=ADMIN,
            password=self.site.claim.secrets.database_admin_password,
            dbname=database,
            connect_timeout=10,
            autocommit=True,
            require_auth="scram-sha-256",  # never tell a password to an impostor
        )

    def create_database(self, name: str, template: str = "template1") -> str:
        """Make a database that the service's role owns; returns its URL."""
        with self.connect_as_admin() as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(ROLE), sql.Identifier(template)
                )
            )
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, connected clients or not."""
        with self.connect_as_admin() as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )

    def _ensure_database(self, connection: psycopg.Connection) -> None:
        """Make the service's role and database; each start, because the first may have crashed."""
        if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE]).rowcount:
            # No superuser: what works here works with the role that a real installation grants.
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}").format(
                    sql.Identifier(ROLE), sql.Literal(self.site.claim.secrets.database_password)
                )
            )
        found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE])
        if not found.rowcount:
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(
                    sql.Identifier(DATABASE), sql.Identifier(ROLE)
                )
            )

    def _initialise(self) -> None:
        """Run initdb under another name, then rename: a crash leaves no half data folder."""
        data = self.site.placement.data
        fresh, password_file = data / "postgres.new", data / "password"
        if fresh.exists():  # a start that was killed half-way left it
            shutil.rmtree(fresh)
        fresh.mkdir(mode=0o700)
        self.own(fresh)
        write_atomically(
            password_file, self.site.claim.secrets.database_admin_password, self._owner_of_files()
        )
        try:
            self._run_initdb(fresh, password_file)
        finally:
            password_file.unlink()
        fresh.rename(self.folder)
        descriptor = os.open(data, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # the rename itself
        finally:
            os.close(descriptor)

    def _run_initdb(self, fresh: Path, password_file: Path) -> None:
        command = [str(self.site.placement.binaries.postgres / "initdb"), "-D", str(fresh)]
        command += [f"--username={ADMIN}", f"--pwfile={password_file}", "--auth=scram-sha-256"]
        # The builtin locale is the same on every system and in every later version of one, so
        # that indexes on text stay valid when the state folder moves or the system is upgraded.
        command += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin"]
        command += ["--builtin-locale=C.UTF-8", "--data-checksums", "--no-instructions"]
        if not self.site.durable:
            command += ["--no-sync"]
        running = self.run("initdb", command, "TERM", 5.0)
        try:
            status = running.wait(START_SECONDS)
        finally:
            running.stop()
        if status != 0:
            raise ProgramFailed(f"initdb failed ({running.log})", running.tail())

    def _owner_of_files(self) -> tuple[int, int] | None:
        account = self.site.placement.account
        return None if account is None else (account.uid, account.gid)

    def _remove_stale_pid_file(self) -> None:
        """Remove a pid file whose process is gone, or is somebody else by now.

        PostgreSQL itself sees the first case, but takes any process of the same account that got
        the number since, as in a restarted container, for a postmaster. The state folder's lock
        already says that no other starter is at work here, and PostgreSQL still refuses to start
        beside surviving backends, because it finds their shared memory.
        """
        pid_file = self.folder / "postmaster.pid"
        if not Path("/proc/self/cwd").exists() or not pid_file.exists():
            return
        deadline = time.monotonic() + self.grace_seconds
        written = pid_file.read_text().split(maxsplit=1)  # empty after a crash in mid-write
        pid = abs(int(written[0])) if written else 0
        while pid and process_in(self.folder, pid):
            if time.monotonic() > deadline:
                raise FolderRefused(
                    f"PostgreSQL, process {pid}, still runs on {self.folder} although what started "
                    f"it is gone. Stop it with `kill -INT {pid}`."
                )
            time.sleep(0.05)
        pid_file.unlink(missing_ok=True)
