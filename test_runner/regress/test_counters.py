"""Transactions, multixacts, their members and object ids, counted around 2^31 and 2^32."""

import pytest
import zenith
from fixtures import postgres
from fixtures.counters import (
    EPOCH,
    HALF,
    WRAP,
    cross_transactions,
    freeze_everything,
    prepare_crossing,
)
from fixtures.verify import Verify

TABLES = """
create table shared (n int primary key, v int);
insert into shared select n, 0 from generate_series(1, 1200) n;
create function share_in_subtransactions(first int, last int) returns void as $$
begin
    for i in first .. last loop
        begin
            perform 1 from shared where n = i for key share;
        exception when others then raise;
        end;
    end loop;
end $$ language plpgsql;
"""
COUNTS = "select how, count(*) from t group by how order by how"
VALUES = "select v, count(*) from shared group by v order by v"


def cross_multixacts(pg: zenith.Compute) -> None:
    """Makes 1200 multixacts, no two of the same members, each of which an update belongs to."""
    with pg.connect() as sharing, pg.connect() as updating:
        sharing.execute("select share_in_subtransactions(1, 1200)")
        updating.execute("select count(*) from (select * from shared for key share) s")
        updating.execute("update shared set v = 1 where n % 2 = 0")
        updating.execute("update shared set v = 2 where n % 3 = 0")
        sharing.commit()
        updating.commit()


def next_xid(pg: zenith.Compute) -> int:
    return int(pg.psql("select pg_snapshot_xmax(pg_current_snapshot())"))


@pytest.mark.parametrize("around", ["near_half", "near_wrap"])
def test_transactions(around: str, request: pytest.FixtureRequest, verify: Verify) -> None:
    repo: zenith.Repository = request.getfixturevalue(around)
    border = {"near_half": HALF, "near_wrap": WRAP}[around] + EPOCH * WRAP
    main = repo.branch("main")
    with main.compute() as pg:
        prepare_crossing(pg)
        assert border - WRAP // 2 < next_xid(pg) < border
        before = postgres.received_lsn(pg)
        cross_transactions(pg)
        assert border + 500 < next_xid(pg) < border + 2000
        crossed = postgres.received_lsn(pg)
        xid = next_xid(pg)
        pg.restart(immediate=True)
        assert next_xid(pg) >= xid
        pg.psql("commit prepared 'over'")
        freeze_everything(pg)
        xid_of_main = next_xid(pg)
        end = postgres.received_lsn(pg)
        segments = sorted(path.name for path in (pg.pgdata / "pg_xact").iterdir())
        assert len(segments) == 1, f"the commit log is not truncated: {segments}"

    with repo.create_branch("before", at=("main", before)).compute() as pg:
        assert next_xid(pg) < border
        cross_transactions(pg)
        pg.psql("rollback prepared 'over'")
        assert pg.psql(COUNTS) == "committed|100\nlater|200"
    with repo.create_branch("crossed", at=("main", crossed)).compute() as pg:
        assert next_xid(pg) >= xid
        assert pg.psql(COUNTS) == "committed|100\nlater|200"
        pg.psql("commit prepared 'over'")
        freeze_everything(pg)
        assert pg.psql(COUNTS) == "committed|100\nlater|200\nprepared|500"
    with repo.create_branch("end", at=("main", end)).compute() as pg:
        assert next_xid(pg) >= xid_of_main
        assert pg.psql(COUNTS) == "committed|100\nlater|200\nprepared|500"
        pg.psql("insert into t values (0, 'new')")
    verify(f"main@{crossed}", "main", "crossed")


@pytest.mark.parametrize("around", ["near_half", "near_wrap"])
def test_multixacts(around: str, request: pytest.FixtureRequest, verify: Verify) -> None:
    repo: zenith.Repository = request.getfixturevalue(around)
    border = {"near_half": HALF, "near_wrap": WRAP}[around]
    main = repo.branch("main")
    counters = "select next_multixact_id, next_multi_offset from pg_control_checkpoint()"
    with main.compute() as pg:
        postgres.script(pg.dsn, TABLES)
        pg.psql("select n from shared")
        before = postgres.received_lsn(pg)
        cross_multixacts(pg)
        crossed = postgres.received_lsn(pg)
        pg.psql("checkpoint")
        values = pg.psql(VALUES)
        assert values == "0|400\n1|400\n2|400"
        assert pg.psql("select count(distinct xmax::text) from shared") == "1200"
        freeze_everything(pg)
        assert pg.psql(VALUES) == values
        assert len(list((pg.pgdata / "pg_multixact" / "offsets").iterdir())) == 1
        assert len(list((pg.pgdata / "pg_multixact" / "members").iterdir())) == 1
    with repo.create_branch("before", at=("main", before)).compute() as pg:
        multi, member = (int(number) for number in pg.psql(counters).split("|"))
        assert (multi, member) == (border - 400, border - 400)
        assert pg.psql(VALUES) == "0|1200"
        cross_multixacts(pg)
        assert pg.psql(VALUES) == values
    with repo.create_branch("crossed", at=("main", crossed)).compute() as pg:
        multi, member = (int(number) for number in pg.psql(counters).split("|"))
        assert (border + 1000) % WRAP < multi < (border + 5000) % WRAP
        assert (border + 2000) % WRAP < member < (border + 20000) % WRAP
        # Who has updated a row is told by the members alone, unless it was looked up before.
        assert pg.psql(VALUES) == values
        cross_multixacts(pg)
        freeze_everything(pg)
        assert pg.psql("select sum(v) from shared") == "1200"
    with repo.create_branch("end").compute() as pg:
        assert pg.psql(VALUES) == values
        cross_multixacts(pg)
    verify(f"main@{crossed}", "main", "before")


@pytest.mark.parametrize("around", ["near_half", "near_wrap"])
def test_object_ids(around: str, request: pytest.FixtureRequest, verify: Verify) -> None:
    repo: zenith.Repository = request.getfixturevalue(around)
    main = repo.branch("main")
    make = """
    do $$ begin
        for n in {first} .. {last} loop
            execute 'create table t' || n || ' as select ' || n || ' as n';
        end loop;
    end $$;
    """
    files = "select relfilenode from pg_class where relname ~ '^t[0-9]+$'"
    checked = "select count(*) from pg_class where relname ~ '^t[0-9]+$' and ("
    checked += "xpath('/row/n/text()', query_to_xml('select n from ' || relname, false, true, ''))"
    checked += ")[1]::text = substr(relname, 2)"
    with main.compute() as pg:
        pg.psql(make.format(first=1, last=20))
        before = postgres.received_lsn(pg)
        pg.psql(make.format(first=21, last=60))
        crossed = postgres.received_lsn(pg)
        nodes = set(map(int, pg.psql(files).splitlines()))
        assert len(nodes) == 60
        assert max(nodes) - min(nodes) > 100
        pg.kill()
        pg.start()
        pg.psql(make.format(first=61, last=80))
        assert pg.psql(checked) == "80"
    for name, lsn, count in (("before", before, 20), ("crossed", crossed, 60)):
        with repo.create_branch(name, at=("main", lsn)).compute() as pg:
            pg.psql(make.format(first=count + 1, last=count + 40))
            pg.kill()
            pg.start()
            pg.psql(make.format(first=count + 41, last=count + 60))
            assert len(set(pg.psql(files).splitlines())) == count + 60
            assert pg.psql(checked) == str(count + 60)
    verify("main", "crossed")
