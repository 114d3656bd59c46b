"""When redo processes make pages: ahead of demand, and not where an image answers."""

from pathlib import Path

import zenith
from fixtures import postgres
from fixtures.cli import Cli
from fixtures.waiting import wait_until

ROUND = 30
"""Changes of the page: many more than would be applied only when somebody asks."""
UPDATES = "update t set n = n + 1;\n" * ROUND


def status(cli: Cli, key: str) -> int:
    """A number that the page server tells of itself."""
    return int(cli.json("status")["server"][key])


def test_a_page_that_changes_on_is_ready(fresh: Path, cli: Cli) -> None:
    with (fresh / ".zenith" / "zenith.toml").open("a") as config:
        # Whatever else this machine does.
        config.write("[walredo]\nahead_percent = 100\n")
    with zenith.Repository.open(fresh) as repo:
        main = repo.branch("main")
        with main.compute() as pg:
            postgres.script(pg.dsn, "create table t (n int); insert into t values (0);\n")
            path = pg.psql("select pg_relation_filepath('t')").split("/")
            rel = (1663, int(path[1]), int(path[2]))
            postgres.script(pg.dsn, UPDATES)
            main.get_page(*rel, 0, lsn=postgres.received_lsn(pg))
            assert status(cli, "pages_in_backlog") >= 1
            postgres.script(pg.dsn, UPDATES)
            lsn = postgres.received_lsn(pg)
            wait_until("making the page", lambda: status(cli, "records_ahead") >= ROUND - 8)
        assert status(cli, "pages_ahead") >= 1
        before = status(cli, "redo_records")
        page = main.get_page(*rel, 0, lsn=lsn)
        assert status(cli, "redo_records") - before < ROUND
        # The same page, with nothing in the cache.
        repo.restart()
        assert main.get_page(*rel, 0, lsn=lsn) == page
        assert status(cli, "redo_records") > ROUND


def test_an_image_needs_no_redo(main: zenith.Branch, cli: Cli) -> None:
    with main.compute() as pg:
        # Whoever reads rows first marks them, which may be logged as well.
        rows = "insert into t select generate_series(1, 100);\nselect count(*) from t;\n"
        # The first change of a page behind a checkpoint is logged with the page.
        change = "checkpoint;\nupdate t set n = 0 where n = 50;\n"
        postgres.script(pg.dsn, "create table t (n int);\n" + rows + change)
        path = pg.psql("select pg_relation_filepath('t')").split("/")
        lsn = postgres.received_lsn(pg)
        postgres.script(pg.dsn, "update t set n = 1 where n = 51;\n")
        later = postgres.received_lsn(pg)
    rel = (1663, int(path[1]), int(path[2]))
    before = status(cli, "redo_pages")
    image = main.get_page(*rel, 0, lsn=lsn)
    assert status(cli, "redo_pages") == before
    assert main.get_page(*rel, 0, lsn=later) != image
    assert status(cli, "redo_pages") == before + 1
