"""``zenith checkpoint``: history in layers up to its end, so that a start has no WAL to read."""

import zenith
from fixtures import postgres
from fixtures.cli import Cli
from fixtures.verify import Verify

FILL = "create table t as select n, repeat('x', 100) x from generate_series(1, 20000) n"


def versions_in_memory(repo: zenith.Repository, branch: str) -> int:
    """How many versions of pages the page server has indexed from WAL."""
    shown = postgres.run("psql", "-XAtq", repo.connstr, "-c", f"timeline_show {branch}").stdout
    return int(shown.strip().split("|")[8])


def test_a_checkpoint_leaves_nothing_to_index(
    repo: zenith.Repository, main: zenith.Branch, cli: Cli, verify: Verify
) -> None:
    with main.compute() as pg:
        pg.psql(FILL)
        before = versions_in_memory(repo, "main")
        done = cli.json("checkpoint")
        assert (done["branch"], done["timeline"]) == ("main", main.timeline)
        folder = repo.path / "timelines" / main.timeline / "layers"
        sizes = [(folder / layer["name"]).stat().st_size for layer in done["layers"]]
        assert sizes == [layer["bytes"] for layer in done["layers"]] != []
        pg.psql("update t set n = -n where n < 100")
    # What came since is little; the second one writes just that.
    repo.restart()
    assert 0 < versions_in_memory(repo, "main") < before // 2
    again = main.checkpoint()
    assert zenith.Lsn(again["lsn"]) == main.last_record_lsn > zenith.Lsn(done["lsn"])
    assert len(again["layers"]) == 1
    dev = repo.create_branch("dev", at=("main", zenith.Lsn(again["lsn"])))
    repo.restart()
    assert versions_in_memory(repo, "main") == 0
    assert main.checkpoint()["layers"] == []
    assert "already" in cli.run("checkpoint", "main").stderr
    with dev.compute() as pg:
        assert pg.psql("select sum(n) from t") == "200000100"
        pg.psql("delete from t where n % 3 = 0")
        assert dev.checkpoint()["layers"]
        pg.psql("update t set n = n + 1")
        state = pg.psql("select count(*), sum(n) from t")
        compacted = cli.json("compact", "dev")
        folder = repo.path / "timelines" / dev.timeline / "layers"
        assert {layer["name"] for layer in compacted["made"]} == {p.name for p in folder.iterdir()}
        assert [layer["name"][:7] for layer in compacted["made"]] == ["delta__", "image__"]
        assert len(compacted["replaced"]) == 1
    dev.compact()
    assert dev.compact()["made"] == []
    assert "already" in cli.run("compact", "dev").stderr
    assert cli("psql", "dev", "-At", "-c", "select count(*), sum(n) from t").strip() == state
    verify("dev")
    assert "no branch" in cli.refused("checkpoint", "nobody")
