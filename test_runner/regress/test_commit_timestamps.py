"""Commit timestamps: a new compute answers for old transactions as the old one did."""

import zenith
from fixtures import postgres
from fixtures.cli import Cli
from fixtures.verify import Verify

# What the server says of every transaction that has left a row.
ALL = """
    select count(*), count(pg_xact_commit_timestamp(xmin)),
           md5(string_agg(n || ' ' || xmin || ' ' || pg_xact_commit_timestamp_origin(xmin)::text,
                          ',' order by n))
    from t
"""


def commits(first: int, last: int) -> str:
    """Rows by transactions of their own, and by subtransactions of one."""
    return f"""
        do $$ begin for n in {first}..{last} loop
            insert into t values (n); commit;
        end loop; end $$;
        do $$ begin for n in {first}..{last} loop
            begin insert into t values (-n); exception when others then null; end;
        end loop; end $$;
        begin; insert into t values (0); prepare transaction 'p'; commit prepared 'p';
    """


def restarted_with(pg: zenith.Compute, *settings: str) -> None:
    """Changes settings that take a new start."""
    for setting in settings:
        pg.psql(f"alter system set {setting}")
    pg.stop()
    pg.start()


def test_branches_before_and_after(repo: zenith.Repository, cli: Cli, verify: Verify) -> None:
    def all_at(point: str) -> str:
        return cli("psql", point, "-Atc", ALL).strip()

    with repo.branch("main").compute() as pg:
        pg.psql("create table t (n int)")
        postgres.script(pg.dsn, commits(1, 50))
        restarted_with(pg, "track_commit_timestamp = on")
        started = pg.psql(ALL)
        assert started.startswith("101|0|")
        pg.psql("select pg_replication_origin_create('elsewhere')")
        postgres.script(pg.dsn, commits(51, 600))
        postgres.script(
            pg.dsn,
            """select pg_replication_origin_session_setup('elsewhere');
               begin;
               select pg_replication_origin_xact_setup('0/AB', '2001-02-03 04:05:06+00');
               insert into t values (1000000);
               commit;""",
        )
        tracked = pg.psql(ALL)
        assert tracked.startswith("1203|1102|")
        middle = postgres.received_lsn(pg)
        pg.psql("alter system set track_commit_timestamp = off")
        pg.kill()
        pg.start()
        postgres.script(pg.dsn, "insert into t values (2000000); checkpoint")
        off = postgres.received_lsn(pg)
        restarted_with(pg, "track_commit_timestamp = on")
        pg.psql("insert into t values (3000000)")
        last = pg.psql(ALL)
        assert last.startswith("1205|1|")
        end = postgres.received_lsn(pg)
        # No compute says so, but a server that tracks them is followed by one that does.
        assert all_at(f"main@{middle}") == tracked
        assert all_at(f"main@{end}") == last
        verify(f"main@{middle}", f"main@{off}", f"main@{end}")
    with repo.create_branch("dev", at=("main", middle)).compute() as dev:
        assert dev.psql(ALL) == tracked
        dev.psql("insert into t values (4000000)")
        assert dev.psql(ALL).startswith("1204|1103|")
        # Without them it works as well, and then they are gone.
        restarted_with(dev, "track_commit_timestamp = off")
        dev.psql("insert into t values (5000000)")
        assert dev.psql("select count(*) from t") == "1205"
        restarted_with(dev, "track_commit_timestamp = on")
        assert dev.psql(ALL).startswith("1205|0|")
    verify("dev")


def test_parameters_of_the_control_file(repo: zenith.Repository, cli: Cli) -> None:
    """A base backup's control file has the parameters of its LSN."""
    with repo.branch("main").compute() as pg:
        before = postgres.received_lsn(pg)
        restarted_with(pg, "max_connections = 33", "wal_log_hints = on", "wal_level = logical")
        pg.psql("create table t (n int)")
        after = postgres.received_lsn(pg)
    for number, (lsn, expected) in enumerate(
        [(before, ("100", "off", "replica")), (after, ("33", "on", "logical"))]
    ):
        cli("pg", "create", f"c{number}", "--at", f"main@{lsn}")
        pgdata = repo.path / "computes" / f"c{number}" / "pgdata"
        said = postgres.run("pg_controldata", "-D", pgdata).stdout
        found = dict(line.split(":", 1) for line in said.splitlines())
        settings = ("max_connections", "wal_log_hints", "wal_level")
        assert tuple(found[f"{name} setting"].strip() for name in settings) == expected
