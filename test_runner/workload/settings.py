"""How the servers of a run are configured: decided by its seed, once."""

import dataclasses
from pathlib import Path
from typing import Literal

from .chance import Chance


@dataclasses.dataclass(frozen=True)
class Settings:
    """What differs between runs."""

    durability: Literal["local", "pageserver"]
    postgres: dict[str, str]
    page_server: dict[str, dict[str, int]]
    """Tables of ``zenith.toml``."""

    @property
    def has_images(self) -> bool:
        """Whether every record has the pages as they are after it."""
        return "wal_consistency_checking" in self.postgres

    @property
    def has_timestamps(self) -> bool:
        """Whether it is known when what was committed: with nobody at work but the clients."""
        return "track_commit_timestamp" in self.postgres and self.postgres["autovacuum"] == "off"

    @staticmethod
    def choose(chance: Chance) -> "Settings":
        """Those of a seed."""
        postgres = {
            "autovacuum": "off",
            # Servers are killed here, machines are not.
            "fsync": chance.pick(["off", "off", "off", "on"]),
            # Small ones make PostgreSQL write and read pages, and so our library.
            "shared_buffers": chance.pick(["512kB", "1MB", "4MB", "32MB"]),
            "wal_compression": chance.pick(["off", "off", "pglz", "lz4", "zstd"]),
            "wal_level": chance.pick(["replica", "replica", "logical"]),
            "checkpoint_timeout": chance.pick(["30s", "5min"]),
            "max_wal_size": chance.pick(["48MB", "1GB"]),
            "wal_log_hints": chance.pick(["off", "on"]),
            "max_prepared_transactions": "20",
            # Each backend would keep some of few buffers pinned.
            "max_parallel_workers_per_gather": "0",
            "max_parallel_maintenance_workers": "0",
        }
        if chance.often(0.35):
            postgres["wal_consistency_checking"] = "all"
        if chance.often(0.15):
            postgres["autovacuum"] = "on"
            postgres["autovacuum_naptime"] = "1s"
        durability: Literal["local", "pageserver"] = chance.pick(["local", "pageserver"])
        if chance.often(0.4):
            postgres["track_commit_timestamp"] = "on"
        own = chance.fork("page server")
        page_server = {
            "cache": {"bytes": own.pick([1 << 20, 64 << 20, 1 << 40])},
            "layers": {
                # Small ones are merged, and become images, all the time.
                "stretch_bytes": own.pick([96 << 10, 1 << 20, 64 << 20]),
                "image_percent": own.pick([20, 100]),
                "image_piece_bytes": own.pick([1 << 20, 1 << 30]),
                "chain_max": own.pick([4, 256]),
                "cache_bytes": own.pick([0, 64 << 20]),
            },
            # What is removed is not there to be verified, and nobody else may miss it.
            "wal": {"keep": own.pick([0, 4 << 20, 1 << 40])},
        }
        if own.often(0.4):
            # The page server removes what is older by itself.
            page_server["retention"] = {"window_bytes": own.pick([1 << 20, 8 << 20])}
        return Settings(durability, postgres, page_server)

    @property
    def window_bytes(self) -> int | None:
        """How much of a branch's history is kept; ``None``: all."""
        return self.page_server.get("retention", {}).get("window_bytes")

    def write(self, config: Path) -> None:
        """Puts those of the page server into its ``zenith.toml``."""
        with open(config, "a") as file:
            for table, values in self.page_server.items():
                lines = (f"{name} = {value}\n" for name, value in values.items())
                file.write(f"[{table}]\n" + "".join(lines))

    def __str__(self) -> str:
        own = [f"{k}={v}" for values in self.page_server.values() for k, v in values.items()]
        return ", ".join([self.durability, *(f"{k}={v}" for k, v in self.postgres.items()), *own])
