"""``zenith gc``: layers go that nobody needs, and nothing else."""

import zenith
from fixtures import postgres
from fixtures.cli import Cli
from fixtures.verify import Verify
from fixtures.waiting import wait_until

OPTIONS = """
[layers]
stretch_bytes = 65536
image_percent = 1
image_piece_bytes = 1000000

[retention]
window_bytes = 1
"""
SUM = "select count(*), sum(n) from t"


def test_what_is_needed_stays(
    repo: zenith.Repository, main: zenith.Branch, cli: Cli, verify: Verify
) -> None:
    with (repo.path / "zenith.toml").open("a") as file:
        file.write(OPTIONS)
    repo.restart()
    layers = repo.path / "timelines" / main.timeline / "layers"
    with main.compute() as pg:
        begin = pg.base_lsn
        pg.psql("create table t as select n, repeat('x', 500) x from generate_series(1, 4000) n")
        early = postgres.received_lsn(pg)
        repo.create_branch("early", at=("main", early))
        pg.psql("update t set n = n + 1")
        middle = postgres.received_lsn(pg)
        cli("tag", "middle", f"main@{middle}")
        states = {"early": "4000|8002000", "middle": pg.psql(SUM)}
        pg.psql("delete from t where n % 2 = 0")
        gone = postgres.received_lsn(pg)
        for _ in range(3):
            pg.psql("update t set n = n + 1")
        cli("checkpoint")
        wait_until("making an image", lambda: len(list(layers.glob("image__*"))) > 1)
        # What the compute has not fetched yet it reads at its base.
        refusal = cli.refused("gc")
        assert str(begin) in refusal
        assert "zenith pg advance main" in refusal
        cli("pg", "advance", "main")
        planned = cli.json("gc", "--dry-run")
        assert planned["layers"], planned
        assert all((layers / layer["name"]).exists() for layer in planned["layers"])
        done = cli.json("gc")
        names = {layer["name"] for layer in done["layers"]}
        assert names
        assert not names & {path.name for path in layers.iterdir()}
        state = pg.psql(SUM)
    horizon = zenith.Lsn(done["horizon"])
    assert gone < horizon
    for restarted in (False, True):
        if restarted:
            repo.restart()
        line = cli.refused("psql", f"main@{gone}", "-c", "select 1")
        assert str(horizon) in line
        assert cli("psql", "middle", "-At", "-c", SUM).strip() == states["middle"]
        assert cli("psql", "early", "-At", "-c", SUM).strip() == states["early"]
        assert cli("psql", "main", "-At", "-c", SUM).strip() == state
    verify("main", "early")
