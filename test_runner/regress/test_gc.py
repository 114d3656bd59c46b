"""``zenith gc``: layers go that nobody needs, and nothing else."""

import shutil

import zenith
from fixtures import postgres
from fixtures.cli import Cli
from fixtures.verify import Verify
from fixtures.waiting import wait_until

OPTIONS = """
[layers]
image_piece_bytes = 1000000

[retention]
window_bytes = 1
check_seconds = {check_seconds}
"""
SUM = "select count(*), sum(n) from {}"


def keep_little(repo: zenith.Repository, check_seconds: int) -> None:
    """Has a repository keep nothing of its past but what somebody needs."""
    with (repo.path / "zenith.toml").open("a") as file:
        file.write(OPTIONS.format(check_seconds=check_seconds))
    repo.restart()


def update(pg: zenith.Compute, cli: Cli, tables: list[str]) -> zenith.Lsn:
    """Changes every row, and puts the branch into layers that end with an image."""
    for table in tables:
        pg.psql(f"update {table} set n = n + 1")
    cli("compact", "main")
    return postgres.received_lsn(pg)


def test_what_is_needed_stays(
    repo: zenith.Repository, main: zenith.Branch, cli: Cli, verify: Verify
) -> None:
    keep_little(repo, 0)
    layers = repo.path / "timelines" / main.timeline / "layers"
    tables = [f"t{number}" for number in range(2)]
    with main.compute() as pg:
        for table in tables:
            pg.psql(
                f"create table {table} as select n, repeat('x', 500) x "
                "from generate_series(1, 1000) n"
            )
        early = update(pg, cli, tables)
        repo.create_branch("early", at=("main", early))
        middle = update(pg, cli, tables)
        cli("tag", "middle", f"main@{middle}")
        # It has no page of any table yet.
        base = update(pg, cli, tables)
        old = main.compute("old", lsn=base)
        old.start()
        gone = update(pg, cli, tables)
        states = {"early": "1000|501500", "middle": "1000|502500", "old": "1000|503500"}
        for number, table in enumerate(tables):
            update(pg, cli, tables)
            state = f"1000|{505500 + 1000 * number}"
            assert pg.psql(SUM.format(table)) == state
            planned = cli.json("gc", "main", "--dry-run")
            assert all((layers / layer["name"]).exists() for layer in planned["layers"])
            held = {hold["by"] for hold in planned["held"] if hold["bytes"] > 0}
            assert {"branch early", "tag middle", "compute old"} <= held, planned
            done = cli.json("gc", "main")
            names = {layer["name"] for layer in done["layers"]}
            # A server at rest writes something now and then, too.
            assert names >= {layer["name"] for layer in planned["layers"]}
            assert not names & {path.name for path in layers.iterdir()}
            assert old.psql(SUM.format(table)) == states["old"]
            if number == 0:
                repo.restart(immediate=True)
    assert names
    horizon = zenith.Lsn(done["horizon"])
    assert gone < horizon
    line = cli.refused("psql", f"main@{gone}", "-c", "select 1")
    assert str(horizon) in line
    for point in ("early", "middle"):
        assert cli("psql", point, "-At", "-c", SUM.format("t0")).strip() == states[point]
    assert cli("psql", "main", "-At", "-c", SUM.format("t0")).strip() == state
    verify("main")
    # Neither is there any more, and nobody says so for the one whose directory is gone.
    other = main.compute("other", lsn=base)
    old.stop()
    shutil.rmtree(repo.path / "computes" / "old")
    other.destroy()
    assert "compute old" in {hold["by"] for hold in cli.json("gc", "main", "--dry-run")["held"]}
    cli("pg", "destroy", "old")
    done = cli.json("gc", "main")
    assert done["layers"]
    assert "compute old" not in {hold["by"] for hold in done["held"]}
    assert str(base) in cli.refused("pg", "create", "old", "--at", f"main@{base}")


def test_computes_of_an_earlier_release_keep_what_they_need(
    repo: zenith.Repository, main: zenith.Branch, cli: Cli
) -> None:
    keep_little(repo, 1)
    with main.compute() as pg:
        pg.psql("create table t as select n from generate_series(1, 1000) n")
        base = update(pg, cli, ["t"])
        old = main.compute("old", lsn=base)
        # What such a release has left, which knew of no leases.
        repo.stop()
        shutil.rmtree(repo.path / "leases")
        repo.start()
        for _ in range(3):
            gone = update(pg, cli, ["t"])
        update(pg, cli, ["t"])

        def is_removed() -> bool:
            found = repo.status()
            is_behind = zenith.Lsn(found["history_from_lsn"]) > gone
            return is_behind and int(found["history_removed_bytes"]) > 0

        # By itself; it is counted only then.
        wait_until("removing what nobody needs", is_removed)
        status = repo.status()
        assert int(status["history_held_bytes"]) > 0
        assert "for compute old" in status["history_held_by"]
        with old:
            assert old.psql(SUM.format("t")) == "1000|501500"
