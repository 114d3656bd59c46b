"""Times as points: whatever takes a point takes a time, and means the state then."""

import pytest
import zenith
from fixtures.cli import Cli

UTC = """select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
ALL = "select string_agg(n::text, ',' order by n) from t"


@pytest.fixture
def times(main: zenith.Branch) -> list[str]:
    """``times[n]``: when the table ``t`` on ``main`` had the rows up to ``n``."""
    times = []
    with main.compute() as pg:
        pg.psql("create table t (n int)")
        for n in range(3):
            pg.psql(f"insert into t values ({n})")
            times.append(pg.psql(UTC))
    return times


def test_branch_at_a_time(repo: zenith.Repository, times: list[str]) -> None:
    with repo.create_branch("dev", at=f"main@{times[1]}").compute() as pg:
        assert pg.psql(ALL) == "0,1"
        pg.psql("insert into t values (10)")
    # What was before the branch point is the ancestor's, and what came there later is not seen.
    expected = [(times[0], "0"), (times[2], "0,1"), ("-0s", "0,1,10")]
    for number, (time, rows) in enumerate(expected):
        with repo.create_branch(f"dev{number}", at=f"dev@{time}").compute() as pg:
            assert pg.psql(ALL) == rows


def test_the_commit_just_made_is_there_now(repo: zenith.Repository, main: zenith.Branch) -> None:
    with main.compute() as pg:
        pg.psql("create table t (n int)")
        for n in range(20):
            pg.psql(f"insert into t values ({n})")
            repo.create_branch(f"now{n}", at="main@-0s")
        with repo.branch("now19").compute() as last:
            assert last.psql("select count(*) from t") == "20"


def test_every_command_takes_a_time(repo: zenith.Repository, times: list[str], cli: Cli) -> None:
    point = f"main@{times[0]}"
    assert cli("psql", point, "-Atc", ALL).strip() == "0"
    cli("pg", "create", "past", "--at", point)
    with repo.compute("past") as past:
        assert past.psql(ALL) == "0"
    table = cli("psql", point, "-Atc", "select pg_relation_filepath('t')").strip()
    _, db, rel = table.split("/")
    one, three = (cli("page", f"main@{t}", f"1663/{db}/{rel}", 0) for t in (times[0], times[2]))
    assert one != three


@pytest.mark.parametrize("time", ["2001-01-01T00:00:00Z", "-9999d", "-99999999999d"])
def test_before_the_beginning(repo: zenith.Repository, cli: Cli, time: str) -> None:
    for command in (("branch", "b"), ("psql",), ("pg", "create", "c", "--at")):
        assert "before the beginning" in cli.refused(*command, f"main@{time}")
    assert [branch.name for branch in repo.branches()] == ["main"]
