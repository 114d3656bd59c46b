"""Branches: of the past, side by side, and what may not be done with them."""

import pytest
import zenith
from fixtures import processes
from fixtures.cli import USAGE, Cli
from zenith import Lsn


def current_lsn(pg: zenith.Compute) -> Lsn:
    """Where the compute's log ends now."""
    return Lsn(pg.psql("select pg_current_wal_lsn()"))


def test_branch_before_a_mistake(repo: zenith.Repository, main: zenith.Branch) -> None:
    with main.compute() as pg:
        pg.psql("create table precious as select n, md5(n::text) from generate_series(1, 5000) n")
        pg.psql("create table other as select generate_series(1, 100) n")
        lsn = current_lsn(pg)
        pg.psql("delete from precious where n > 10")
        pg.psql("vacuum precious")
        pg.psql("drop table other")
        before = repo.create_branch("before", at=("main", lsn))
        with before.compute() as past:
            assert past.psql("select count(*), sum(n) from precious") == "5000|12502500"
            assert past.psql("select count(*) from other") == "100"
        assert pg.psql("select count(*) from precious") == "10"
        assert before.ancestor is not None
        assert before.ancestor[0] == main.timeline


def test_two_computes_on_two_branches_at_once(repo: zenith.Repository, main: zenith.Branch) -> None:
    with main.compute() as pg:
        pg.psql("create table t (n int primary key, who text); insert into t values (0, 'both')")
        dev = repo.create_branch("dev", at=("main", current_lsn(pg)))
        with dev.compute() as other:
            for n in range(1, 20):
                pg.psql(f"insert into t values ({n}, 'main')")
                other.psql(f"insert into t values ({n}, 'dev')")
            assert pg.psql("select who, count(*) from t group by 1 order by 1") == "both|1\nmain|19"
            assert other.psql("select who, count(*) from t group by 1 order by 1") == (
                "both|1\ndev|19"
            )
    # And each again from what the page server has of it.
    repo.compute("main").destroy()
    repo.compute("dev").destroy()
    for name in ("main", "dev"):
        with repo.branch(name).compute() as pg:
            assert pg.psql(f"select count(*) from t where who = '{name}'") == "19"


def test_branch_of_a_branch(repo: zenith.Repository, main: zenith.Branch) -> None:
    with main.compute() as pg:
        pg.psql("create table t as select 1 as n")
        repo.create_branch("a", at=("main", current_lsn(pg)))
    with repo.branch("a").compute() as pg:
        pg.psql("insert into t values (2)")
        lsn = current_lsn(pg)
        pg.psql("insert into t values (3)")
    with repo.create_branch("b", at=("a", lsn)).compute() as pg:
        assert pg.psql("select string_agg(n::text, ',' order by n) from t") == "1,2"
        pg.psql("insert into t values (4)")
    with repo.create_branch("c", at="a").compute() as pg:
        assert pg.psql("select string_agg(n::text, ',' order by n) from t") == "1,2,3"


def test_branch_of_an_idle_database_at_every_step(
    repo: zenith.Repository, main: zenith.Branch
) -> None:
    lsns = []
    with main.compute() as pg:
        pg.psql("create table t (n int)")
        for n in range(5):
            pg.psql(f"insert into t values ({n})")
            lsns.append(current_lsn(pg))
    assert lsns == sorted(lsns)
    for n, lsn in enumerate(lsns):
        branch = repo.create_branch(f"step{n}", at=("main", lsn))
        with branch.compute() as pg:
            assert pg.psql("select count(*) from t") == str(n + 1)
        branch.compute().destroy()


def test_commands_and_json(repo: zenith.Repository, cli: Cli) -> None:
    cli("branch", "dev")
    cli("branch", "older", "main")
    branches = {branch["name"]: branch for branch in cli.json("branch")}
    assert sorted(branches) == ["dev", "main", "older"]
    assert branches["main"]["ancestor_timeline"] is None
    assert branches["dev"]["ancestor_branch"] == "main"
    assert Lsn(branches["dev"]["ancestor_lsn"])
    tree = cli("branch")
    assert "* main" in tree
    assert "dev" in tree
    cli("branch", "-m", "dev", "next")
    cli("branch", "-d", "older")
    assert sorted(branch["name"] for branch in cli.json("branch")) == ["main", "next"]
    with pytest.raises(zenith.NotFound):
        repo.branch("dev")


def test_bad_input_changes_nothing(repo: zenith.Repository, cli: Cli) -> None:
    cli("branch", "dev")
    before = cli("branch", "-o", "json")

    assert "nowhere" in cli.refused("branch", "x", "nowhere")
    assert "exists already" in cli.refused("branch", "dev")
    assert "LSN" in cli.refused("branch", "x", "main@0/xyz", code=USAGE)
    for name in ("-x", "a b", "../x", "", ".", "a/b", "x" * 64):
        cli.refused("branch", "--", name, code=USAGE)
    assert "nowhere" in cli.refused("branch", "-d", "nowhere")
    assert "nowhere" in cli.refused("branch", "-m", "nowhere", "x")
    assert "exists already" in cli.refused("branch", "-m", "main", "dev")
    cli.refused("branch", "-d", "main")  # dev depends on it.

    with pytest.raises(zenith.NotFound):
        repo.create_branch("x", at="nowhere")
    with pytest.raises(zenith.AlreadyExists):
        repo.create_branch("dev")
    with pytest.raises(zenith.InvalidArgument):
        repo.create_branch("x", at="main@0/xyz")
    with pytest.raises(zenith.InvalidArgument):
        repo.create_branch("a b")

    assert cli("branch", "-o", "json") == before


def test_lsn_before_the_beginning(repo: zenith.Repository, cli: Cli) -> None:
    line = cli.refused("branch", "x", "main@0/28")
    assert "0/28" in line
    with pytest.raises(zenith.Error, match="0/28"):
        repo.create_branch("x", at=("main", "0/28"))
    assert [branch.name for branch in repo.branches()] == ["main"]


def test_lsn_beyond_the_end_waits_then_names_both(fresh_with_short_timeout: Cli) -> None:
    cli = fresh_with_short_timeout
    end = cli.json("branch")[0]["last_record_lsn"]
    line = cli.refused("branch", "x", "main@F/0")
    assert "F/0" in line
    assert end in line
    assert len(cli.json("branch")) == 1


@pytest.fixture
def fresh_with_short_timeout(cli: Cli, fresh: object) -> Cli:
    """A repository that waits a second for an LSN, its page server running until the end."""
    config = cli.folder / ".zenith" / "zenith.toml"
    text = config.read_text()
    assert "lsn_timeout_seconds = " in text
    lines = [line for line in text.splitlines() if not line.startswith("lsn_timeout_seconds")]
    config.write_text("\n".join(["lsn_timeout_seconds = 1", *lines]) + "\n")
    cli("start")
    return cli


@pytest.fixture(autouse=True)
def _stop_page_server(cli: Cli) -> object:
    yield
    if (cli.folder / ".zenith" / "zenith.toml").exists() and processes.within(cli.folder):
        cli.run("stop")


def test_deleting_gives_back_what_only_it_held(
    repo: zenith.Repository, main: zenith.Branch
) -> None:
    def held() -> dict[str, int]:
        """Every file of the repository but logs and what belongs to processes, with its size."""
        files = [path for path in repo.path.rglob("*") if path.is_file()]
        names = {str(path.relative_to(repo.path)): path.stat().st_size for path in files}
        return {name: size for name, size in names.items() if name.startswith(("refs", "timel"))}

    with main.compute() as pg:
        pg.psql("create table t as select n, repeat('x', 100) x from generate_series(1, 1000) n")
    main.compact()
    before = held()
    child = repo.create_branch("child", at=main)
    with child.compute() as pg:
        pg.psql("insert into t select n, repeat('y', 100) from generate_series(1, 20000) n")
    child.checkpoint()
    grandchild = repo.create_branch("grandchild", at=child)
    grandchild.compact()
    assert sum(held().values()) > sum(before.values()) + 1_000_000
    child.compute().destroy()
    child.delete(reparent=True)
    assert any(child.timeline in name for name in held()), "the other one stands on it"
    grandchild.delete()
    assert held() == before
