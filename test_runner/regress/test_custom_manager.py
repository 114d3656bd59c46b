"""WAL of an extension's own resource manager: taken in where its library is named, else a stop."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import zenith
from fixtures import postgres
from fixtures.cli import Cli
from fixtures.verify import Verify
from fixtures.waiting import wait_until

SOURCE = Path(__file__).parents[1] / "fixtures" / "custom_manager"
FUNCTION = """
create function add(regclass, int, int) returns void strict language c
as '{library}', 'custom_manager_add'
"""
SUM = "select sum(n) from t"


def built(scratch: Path) -> Path:
    """The extension's library, as shared_preload_libraries wants it."""
    folder = scratch / "custom_manager"
    shutil.copytree(SOURCE, folder)
    subprocess.run(
        ["make", "-C", folder, f"PG_CONFIG={postgres.bin_dir() / 'pg_config'}"],
        check=True,
        capture_output=True,
    )
    return folder / "custom_manager"


def main_of(cli: Cli) -> dict[str, Any]:
    """What the command says of the branch main."""
    found: list[dict[str, Any]] = cli.json("branch")
    return next(branch for branch in found if branch["name"] == "main")


def test_records_of_an_extension(
    repo: zenith.Repository,
    main: zenith.Branch,
    cli: Cli,
    verify: Verify,
    scratch: Path,
    allowed_log: list[str],
) -> None:
    allowed_log.append("custom resource manager 200")
    library = built(scratch)
    pg = main.compute()
    with open(pg.pgdata / "postgresql.conf", "a") as file:
        file.write(f"shared_preload_libraries = '{library}'\n")
    pg.start()
    pg.psql(FUNCTION.format(library=library))
    pg.psql("create table t (n int not null)")
    pg.psql("insert into t select generate_series(1, 100)")
    before = postgres.received_lsn(pg)

    # Nobody has told the page server of it.
    pg.psql("select add('t', 0, 7)")
    pg.psql("insert into t values (1000)")
    pg.psql("select add('t', 0, 1)")
    after = postgres.insert_lsn(pg)
    wait_until("stopping", lambda: main_of(cli)["stopped_lsn"] is not None)
    stopped = main_of(cli)
    assert before <= zenith.Lsn(stopped["stopped_lsn"]) < after
    for words in (
        f"resource manager 200 record 0x10 at {stopped['stopped_lsn']}",
        '[walredo] libraries = ["NAME"]',
    ):
        assert words in stopped["cause"], stopped
    # What was before it can be used.
    with repo.create_branch("before", at=("main", before)).compute() as branch:
        assert branch.psql(SUM) == "5050"
    assert int(main.last_record_lsn) < int(after)

    # With the library it goes on where it stood.
    with open(repo.path / "zenith.toml", "a") as file:
        file.write(f'\n[walredo]\nlibraries = ["{library}"]\n')
    repo.restart()
    wait_until("going on", lambda: main.last_record_lsn >= after)
    assert main_of(cli)["stopped_lsn"] is None
    verify("main", f"main@{after}")
    with repo.create_branch("after", at=("main", after)).compute() as branch:
        assert branch.psql(SUM) == str(5050 + 100 * 7 + 1000 + 101)
    # Also where each record carries the page as it must be.
    began = postgres.received_lsn(pg)
    pg.psql("alter system set wal_consistency_checking = 'heap, custom_manager'")
    pg.restart()
    pg.psql("select add('t', 0, 1), add('t', 0, 2)")
    pg.stop()
    found = repo.verify_records(since=began)
    assert found["different"] == 0, found
    # The first has a full-page image, after the restart.
    images = found["resource_managers"]["200"]
    assert (images["applied_images"], images["consistency_images"]) == (1, 1), found
    verify("main")

    # What is on disk already is kept when the library is not named any more.
    text = (repo.path / "zenith.toml").read_text()
    (repo.path / "zenith.toml").write_text(text.replace("libraries", "# libraries"))
    repo.restart()
    assert main_of(cli)["stopped_lsn"] == stopped["stopped_lsn"]
    (repo.path / "zenith.toml").write_text(text)
    repo.restart()
    assert main_of(cli)["stopped_lsn"] is None
    verify("main")


def test_a_library_that_cannot_be_loaded(
    repo: zenith.Repository, main: zenith.Branch, cli: Cli, allowed_log: list[str]
) -> None:
    allowed_log += ["cannot start a redo process", "redo process: FATAL"]
    first = main.last_record_lsn
    pg_class = 1663, 1, 1259  # In template1.
    page = main.get_page(*pg_class, 0, lsn=first)
    with main.compute() as pg:
        pg.psql("create table t as select generate_series(1, 100) n")
        at = 1663, 5, int(pg.psql("select pg_relation_filenode('t')"))
        pg.psql("checkpoint")
        pg.psql("delete from t where n > 50")
        # Its second change: the first after the checkpoint is a full-page image.
        pg.psql("delete from t where n > 25")
        last = postgres.received_lsn(pg)
    with open(repo.path / "zenith.toml", "a") as file:
        file.write('\n[walredo]\nlibraries = ["no_such_library"]\n')
    repo.restart()
    wait_until("knowing of it", lambda: "no_such_library" in cli("status"))
    reason = 'could not access file "no_such_library": No such file or directory'
    problem = cli.json("status")["server"]["problems"]
    assert reason in problem, problem
    assert "[walredo] libraries in zenith.toml" in problem, problem
    with pytest.raises(zenith.Error, match=re.escape(reason)):
        main.get_page(*at, 0, lsn=last)
    # What needs no redo is read, and the branch can be written.
    assert main.get_page(*pg_class, 0, lsn=first) == page
    with repo.create_branch("first", at=("main", first)).compute() as pg:
        pg.psql("create table u as select generate_series(1, 100) n")
        assert pg.psql("select count(*) from u") == "100"
