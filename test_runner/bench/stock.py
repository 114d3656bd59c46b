"""A stock server of this machine's PostgreSQL, for comparison."""

import socket
from pathlib import Path
from types import TracebackType

from fixtures import postgres

# As `zenith init` makes a cluster, so that both have the same pages.
INITDB = ("--no-sync", "--data-checksums", "--auth=trust", "--encoding=UTF8", "--locale=C")

# As `zenith pg create` sets them.
LIKE_A_COMPUTE = """
max_wal_size = 1GB
max_prepared_transactions = 100
effective_io_concurrency = 64
maintenance_io_concurrency = 64
"""


def free_port() -> int:
    """A TCP port that nobody listens on just now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


class Stock:
    """Makes a cluster in a folder and starts its server."""

    def __init__(self, folder: Path, settings: str = "") -> None:
        folder.mkdir()
        postgres.give_away(folder)
        self.pgdata = folder / "pgdata"
        postgres.run("initdb", *INITDB, "-U", "postgres", "-D", self.pgdata)
        self.port = free_port()
        with open(self.pgdata / "postgresql.conf", "a") as file:
            file.write(
                f"port = {self.port}\nunix_socket_directories = ''\n{LIKE_A_COMPUTE}{settings}"
            )
        self.dsn = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self.start()

    def start(self) -> None:
        """Starts it, and waits for its first answer."""
        log = self.pgdata / "log"
        postgres.run("pg_ctl", "start", "-w", "-s", "-D", self.pgdata, "-l", log)

    def stop(self, mode: str = "fast") -> None:
        """Stops it."""
        postgres.run("pg_ctl", "stop", "-s", "-m", mode, "-D", self.pgdata)

    def __enter__(self) -> "Stock":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop("immediate")
