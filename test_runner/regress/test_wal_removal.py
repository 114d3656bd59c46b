"""WAL that is in layers is removed where it is not to be kept, and nobody misses it."""

from pathlib import Path

import zenith
from fixtures.cli import DONE, Cli
from fixtures.verify import verified

SEGMENT_BYTES = 1 << 24
FILL = "create table t as select n, 0 as v, repeat('x', 100) x from generate_series(1, 20000) n"
QUERY = "select count(*), sum(n), sum(v) from t"


def segments(folder: Path) -> int:
    """How many segments there are."""
    return sum(1 for file in (folder / "wal").iterdir() if len(file.name) == 24)


def test_wal_in_layers_goes_and_nobody_misses_it(fresh: Path, cli: Cli) -> None:
    with (fresh / ".zenith" / "zenith.toml").open("a") as config:
        config.write("[layers]\nstretch_bytes = 200000\n[wal]\nkeep = false\n")
    with zenith.Repository.open(fresh) as repo:
        main = repo.branch("main")
        folder = repo.path / "timelines" / main.timeline
        with main.compute() as pg:
            start = main.last_record_lsn
            pg.psql(FILL)
            lsn = zenith.Lsn(pg.psql("select pg_current_wal_lsn()"))
            pg.psql("update t set v = 1 where n % 3 = 0")
            for _ in range(3):
                # The rest of a segment is nothing, so that its records need not be made.
                pg.psql("select pg_switch_wal()")
                pg.psql("update t set v = v + 1 where n = 1")
            at_end = pg.psql(QUERY)
            main.checkpoint()
            assert main.last_record_lsn - start > 2 * SEGMENT_BYTES
            assert segments(folder) <= 2
            status = repo.status()
            assert int(status["layers_written"]) > 10
            assert int(status["stretches_waiting"]) == 0
            assert int(status["wal_bytes_not_in_layers"]) < SEGMENT_BYTES
        # The joint with the same compute, a start without that WAL, pages of old moments.
        repo.restart()
        with main.compute() as pg:
            assert pg.psql(QUERY) == at_end
            pg.psql("insert into t values (0, 0, '')")
        assert main.compute().verify()["different"] == 0
        dev = repo.create_branch("dev", at=("main", lsn))
        with dev.compute() as pg:
            assert pg.psql(QUERY) == "20000|200010000|0"
        # What can be checked without it.
        assert repo.verify_files("dev")["different"] == 0
        assert repo.verify_records("main")["different"] == 0
        code, found = verified(cli, "main")
        assert (code, found["different"]) == (DONE, 0)
        assert zenith.Lsn(found["since"]) > lsn
