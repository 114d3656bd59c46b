"""Replication origins: a branch of a subscriber knows how much of the publisher it has applied."""

import zenith
from fixtures import postgres
from fixtures.cli import Cli
from fixtures.verify import Verify
from fixtures.waiting import wait_until

STATUS = """
    select string_agg(o.roname || ' ' || s.remote_lsn, ',' order by o.roname)
    from pg_replication_origin_status s join pg_replication_origin o on o.roident = s.local_id
"""


def test_progress_by_functions(repo: zenith.Repository, cli: Cli, verify: Verify) -> None:
    seen: list[tuple[zenith.Lsn, str]] = []

    with repo.branch("main").compute() as pg:

        def done(sql: str, expected: str) -> None:
            postgres.script(pg.dsn, sql)
            assert pg.psql(STATUS) == expected
            seen.append((postgres.received_lsn(pg), expected))

        pg.psql("create table t (n int)")
        done(
            "select count(pg_replication_origin_create('o' || n)) from generate_series(1, 9) n", ""
        )
        done("select pg_replication_origin_advance('o1', '2/20')", "o1 2/20")
        done("select pg_replication_origin_advance('o1', '1/10')", "o1 1/10")
        done(
            """select pg_replication_origin_session_setup('o2');
               begin; select pg_replication_origin_xact_setup('3/30', now());
               insert into t values (1); commit;
               begin; select pg_replication_origin_xact_setup('2/30', now());
               insert into t values (2); commit;""",
            "o1 1/10,o2 3/30",
        )
        pg.kill()
        pg.start()
        done(
            """select pg_replication_origin_session_setup('o3');
               begin; select pg_replication_origin_xact_setup('4/40', now());
               insert into t values (3); prepare transaction 'p';""",
            "o1 1/10,o2 3/30,o3 4/40",
        )
        done("select pg_replication_origin_drop('o2')", "o1 1/10,o3 4/40")
        for lsn, expected in seen:
            assert cli("psql", f"main@{lsn}", "-Atc", STATUS).strip() == expected
        verify(f"main@{seen[4][0]}", "main")
    dev = repo.create_branch("dev", at=("main", seen[3][0]))
    with dev.compute() as pg:
        assert pg.psql(STATUS) == seen[3][1]
        pg.psql("select pg_replication_origin_advance('o9', '9/90')")
        # More of them than a server has slots by default.
        pg.psql("alter system set max_replication_slots = 40")
        pg.stop()
        pg.start()
        pg.psql(
            """select count(pg_replication_origin_advance(name, '5/50')) from
               (select 'p' || n as name, pg_replication_origin_create('p' || n)
                from generate_series(1, 25) n) made"""
        )
    repo.create_branch("many", at="dev")
    with repo.branch("many").compute() as pg:
        assert pg.psql("select count(*) from pg_replication_origin_status") == "28"
        assert pg.psql(STATUS).startswith("o1 1/10,o2 3/30,o9 9/90,p1 5/50,")
    verify("many")


def test_a_branch_of_a_subscriber(repo: zenith.Repository, allowed_log: list[str]) -> None:
    allowed_log.append("terminating logical replication worker due to administrator command")
    repo.create_branch("publisher", at="main")
    with repo.branch("publisher").compute() as publisher, repo.branch("main").compute() as pg:
        publisher.psql("alter system set wal_level = logical")
        publisher.stop()
        publisher.start()
        for server in (publisher, pg):
            server.psql("create table t (n int primary key)")
        publisher.psql("create publication p for table t")
        pg.psql(f"create subscription s connection '{publisher.dsn}' publication p")

        def applied(count: int) -> None:
            count_of = "select count(*) from t"
            wait_until("the subscription", lambda: pg.psql(count_of) == str(count))

        publisher.psql("insert into t select generate_series(1, 100)")
        applied(100)
        publisher.psql("insert into t select generate_series(101, 200)")
        applied(200)
        pg.psql("alter subscription s disable")
        status = pg.psql(STATUS)
        assert "pg_" in status
        assert not status.endswith(" 0/0")
        middle = postgres.received_lsn(pg)
        pg.psql("alter subscription s enable")
        publisher.psql("insert into t select generate_series(201, 300)")
        applied(300)
        pg.psql("alter subscription s disable")
    with repo.create_branch("dev", at=("main", middle)).compute() as dev:
        assert dev.psql(STATUS) == status
        assert dev.psql("select count(*) from t") == "200"
