"""GetPage of images in memory, beside what a Unix socket needs for as many bytes."""

import json
import os
import subprocess
from pathlib import Path

import zenith
from fixtures import pgbench

from .measure import Figure
from .report import Row
from .settings import Bench

# 64 MiB: more than the processor's caches hold, and less than the page server's cache of blocks.
BLOCKS = 8_192


def measure(bench: Bench) -> list[Row]:
    """Rows about single pages and batches, over the page server's Unix socket."""
    with zenith.Repository.init(bench.folder("pages")) as repo:
        main = repo.branch("main")
        with main.compute() as pg:
            pgbench.initialise(pg.dsn, bench.scale)
            # Every page once more in the WAL as it is: an image.
            for statement in ("checkpoint", "vacuum full pgbench_accounts", "checkpoint"):
                pg.psql(statement)
            path = pg.psql("select pg_relation_filepath('pgbench_accounts')").split("/")
        # As the page server leaves it by itself after some time. While it does, layers are replaced
        # by others that nobody has read yet.
        main.compact()
        rel = (1663, int(path[1]), int(path[2]))
        lsn = main.last_record_lsn
        blocks = main.rel_size(*rel, lsn=lsn)
        assert blocks is not None
        # The first line is the Unix socket.
        connstr = (repo.path / "pageserver.addr").read_text().splitlines()[0]
        said = subprocess.run(
            [
                Path(os.environ["ZENITH_BIN_DIR"]) / "examples" / "page_speed",
                *(
                    connstr,
                    main.timeline,
                    str(lsn),
                    "/".join(map(str, rel)),
                    str(min(blocks, BLOCKS)),
                ),
            ],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    found = json.loads(said.stdout)
    single, bare_single = (
        Figure.of([ns / 1000 for ns in found[name]]) for name in ("single_ns", "bare_single_ns")
    )
    mib = found["batches_bytes"] / (1 << 20)
    batches, bare_batches = (
        Figure.of([mib / (ns / 1e9) for ns in found[name]])
        for name in ("batches_ns", "bare_batches_ns")
    )
    bare = "bare socket pair"
    return [
        Row("GetPage of an image, one by one", "µs", single, bare, bare_single, 1.5),
        Row("GetPage of images, in batches", "MiB/s", batches, bare, bare_batches, 0.7, True),
    ]
