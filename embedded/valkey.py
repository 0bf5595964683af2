"""The private Valkey: a broker with the Redis protocol, in memory only."""

import redis

from embedded.files import write_atomically
from embedded.server import HOST, Server

# Nothing is saved: the broker carries nudges, and the database is the truth. Evicting a nudge under
# memory pressure would still delay work silently, so a full broker refuses to take more instead.
CONFIGURATION = """\
bind {host}
port {port}
protected-mode yes
unixsocket ""
requirepass {password}
daemonize no
dir {folder}
save ""
appendonly no
maxmemory-policy noeviction
"""


class Valkey(Server):
    """A Valkey that listens on the loopback interface and wants a password."""

    name = "valkey"
    stop_signal = "TERM"
    ready_line = "Ready to accept connections"

    @property
    def url(self) -> str:
        """Where clients find it, password included."""
        return f"redis://:{self.site.claim.secrets.broker_password}@{HOST}:{self.port}/0"

    def prepare(self) -> None:
        """Write the configuration, which carries the password, for the server's account only."""
        data, account = self.site.placement.data, self.site.placement.account
        folder = data / "valkey"
        if not folder.exists():
            folder.mkdir(mode=0o700)
            self.own(folder)
        text = CONFIGURATION.format(
            host=HOST,
            port=self.port,
            password=self.site.claim.secrets.broker_password,
            folder=quoted(str(folder)),
        )
        owner = None if account is None else (account.uid, account.gid)
        write_atomically(data / "valkey.conf", text, owner)

    def command(self) -> list[str]:
        """Everything else is in the configuration file."""
        return [
            str(self.site.placement.binaries.valkey),
            str(self.site.placement.data / "valkey.conf"),
        ]

    def answers(self) -> bool:
        """Log in and compare process ids."""
        if self.running is None:
            return False
        try:
            with redis.Redis.from_url(self.url, socket_timeout=5) as client:
                return bool(client.info("server")["process_id"] == self.running.pid)
        except redis.ConnectionError:
            return False


def quoted(text: str) -> str:
    """A value of Valkey's configuration file that may hold spaces and quotes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
