"""``zenith verify``: finds nothing where nothing is wrong, and what is wrong where something is."""

import json
import os
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import zenith
from fixtures import cli as cli_fixture
from fixtures import pgbench, postgres, processes
from fixtures.cli import DIFFERENT, DONE, Cli
from fixtures.verify import verified
from fixtures.waiting import wait_until

pytestmark = pytest.mark.usefixtures("all_wal")

WORK = """
create table things as
    select n as id, md5(n::text) as tag, point(n % 100, n / 100) as place,
           to_tsvector('simple', md5(n::text)) as words, int4range(n, n + 10) as span
    from generate_series(1, 5000) as n;
create index on things using btree (id);
create index on things using hash (tag);
create index on things using gin (words);
create index on things using gist (span);
create index on things using spgist (place);
create index on things using brin (id) with (pages_per_range = 4);
delete from things where id % 3 = 0;
vacuum things;
insert into things select id + 5000, tag, place, words, span from things;
create unlogged table fleeting as select generate_series(1, 1000);
create table cut as select generate_series(1, 10000);
create sequence numbers;
select nextval('numbers') from generate_series(1, 50);
begin;
create table half as select generate_series(1, 1000);
prepare transaction 'half';
create database logged strategy wal_log;
create database copied strategy file_copy;
create database lost;
drop database lost;
truncate cut;
vacuum (freeze) things;
update things set tag = tag || 'y' where id < 500;

create table wide (id serial primary key, big text);
alter table wide alter column big set storage external;
insert into wide (big) select repeat(md5(n::text), 500) from generate_series(1, 50) n;
update wide set big = big || 'more' where id % 2 = 0;
delete from wide where id % 3 = 0;
vacuum wide;
create table parent (id int primary key);
create table child (id int references parent);
insert into parent select generate_series(1, 500);
insert into child select n % 500 + 1 from generate_series(1, 2000) n;
begin;
select count(*) from (select * from parent for share) s;
savepoint a;
select count(*) from (select * from parent for update) s;
rollback to a;
update parent set id = id where id < 50;
commit;
create table dropped as select generate_series(1, 1000);
drop table dropped;
begin;
create table never as select generate_series(1, 1000);
rollback;
cluster things using things_id_idx;
vacuum full wide;
reindex table parent;
create materialized view counts as select id, count(*) from child group by id;
refresh materialized view counts;
analyze;
"""


@pytest.mark.timeout(300)
def test_branches_and_moments(fresh: Path, repo: zenith.Repository, cli: Cli) -> None:
    main = repo.branch("main")
    elsewhere = fresh / "elsewhere"
    elsewhere.mkdir()
    postgres.give_away(elsewhere)
    with main.compute() as pg:
        pgbench.initialise(pg.dsn)
        postgres.script(pg.dsn, WORK)
        pg.psql(f"create tablespace other location '{elsewhere}'")
        pg.psql("create table outside (a int) tablespace other")
        pg.psql("insert into outside select generate_series(1, 1000)")
        middle = postgres.received_lsn(pg)
        pg.psql("drop table things")
        pg.psql("commit prepared 'half'")
        pgbench.run(pg.dsn, "-c", "2", "-t", "200")
        for point in ("main", f"main@{middle}", f"main@{middle + 10000}"):
            code, found = verified(cli, point)
            assert (code, found["different"], found["differences"]) == (DONE, 0, []), found
            assert found["pages"]["compared"] > 3000
            assert found["since"] is None
            # Who has replayed the same records has the same hints.
            assert set(found["pages"]["masked"]) <= {"lsn", "checksum"}
        # The stock server has kept off what belongs to the compute.
        assert pg.psql("select count(*) from outside") == "1000"
    dev = repo.create_branch("dev", at=("main", middle))
    with dev.compute() as pg:
        pg.psql("rollback prepared 'half'")
        pg.psql("delete from things where id % 2 = 0")
        pg.psql("vacuum things")
    repo.create_branch("later", at="dev")
    for point in ("dev", "later"):
        code, found = verified(cli, point)
        assert (code, found["different"]) == (DONE, 0), found
        assert found["branch"] == point
    assert not (repo.path / "verify").exists()


# Spoils what the stock server starts with: as good a difference as one in the page server.
SPOILER = """#!/bin/sh
"{pageserver}" "$@" || exit
[ "$1" = materialize ] || exit 0
while [ "$1" != --into ]; do shift; done
printf '\\7' | dd of="$2/global/1260" bs=1 seek=8100 conv=notrunc status=none
head -c 8192 /dev/zero >> "$2/base/1/2619"
rm "$2/base/1/3456"
"""


def test_differences_are_told(fresh: Path, repo: zenith.Repository, cli: Cli) -> None:
    programs = fresh / "programs"
    programs.mkdir()
    for program in cli_fixture.programs().iterdir():
        if program.is_file() and program.name != "pageserver":
            (programs / program.name).symlink_to(program)
    pageserver = programs / "pageserver"
    pageserver.write_text(SPOILER.format(pageserver=cli_fixture.programs() / "pageserver"))
    pageserver.chmod(0o755)
    code, found = verified(cli, "main", env={"ZENITH_BIN_DIR": str(programs)})
    assert code == DIFFERENT
    told = {(d["kind"], d["relation"], d["name"], d["block"]) for d in found["differences"]}
    assert told == {
        ("page", "1664/0/1260", "pg_authid", 0),
        ("size", "1663/1/2619", None, None),
        ("relation", "1663/1/3456", None, None),
    }
    assert found["different"] == 3
    assert not (repo.path / "verify").exists()


@pytest.mark.timeout(300)
def test_the_image_in_every_record(repo: zenith.Repository, cli: Cli) -> None:
    main = repo.branch("main")
    with main.compute() as pg:
        pg.psql("alter system set wal_consistency_checking = 'all'")
        pg.restart()
        began = postgres.received_lsn(pg)
        postgres.script(pg.dsn, WORK.replace("5000", "1000"))
        middle = postgres.received_lsn(pg)
        pg.psql("insert into things select * from things limit 100")
        end = postgres.received_lsn(pg)
        found = repo.verify_records(("main", end))
        assert (found["different"], found["differences"]) == (0, []), found
        images = found["images"]
        assert images["compared"] == images["equal"] + images["masked_equal"] + sum(
            images["permitted"].values()
        )
        masked = images["masked"]
        assert {"checksum", "command_id", "unused_space", "deleted_index_page"} <= set(masked)
        assert max(masked.values()) <= images["masked_equal"] <= sum(masked.values())
        managers = found["resource_managers"]
        for name in ("Heap", "Heap2", "Btree", "Hash", "Gin", "Gist", "SPGist", "BRIN", "Sequence"):
            assert managers[name]["consistency_images"] > 0, managers
        assert managers["XLOG"]["applied_images"] > 0, managers
        assert all(
            found["images"]["compared"] >= counts["consistency_images"]
            for counts in managers.values()
        )

        # Records from an LSN on: none before it, and all behind it.
        later = repo.verify_records(("main", end), since=middle)
        assert 100 <= later["records"] < found["records"] / 4
        earlier = repo.verify_records(("main", middle), since=began)
        assert earlier["records"] + later["records"] <= found["records"]
        assert earlier["images"]["compared"] > found["images"]["compared"] / 2
    # A branch has its ancestors' records, too.
    dev = repo.create_branch("dev", at=("main", middle))
    with dev.compute() as pg:
        pg.psql("delete from things where id % 7 = 0")
    done = cli.run("verify", "--records", "dev", "-o", "json")
    assert done.returncode == DONE, done.stderr
    on_dev = json.loads(done.stdout)
    assert (on_dev["branch"], on_dev["different"]) == ("dev", 0)
    assert on_dev["records"] > found["records"] / 2
    assert not (repo.path / "verify").exists()
    assert "before the beginning" in cli.refused("verify", "--records", "--since", "0/28")


def test_a_record_whose_page_is_wrong(
    repo: zenith.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = repo.branch("main")
    with main.compute() as pg:
        pg.psql("alter system set wal_consistency_checking = 'all'")
        pg.restart()
        pg.psql("create table t (a int primary key)")
        pg.psql("insert into t select generate_series(1, 400)")
        pg.psql("vacuum (freeze) t")
        began = postgres.received_lsn(pg)
        pg.psql("delete from t where a = 1")
        pg.psql("update t set a = 1000 where a = 399")
        pg.psql("vacuum t")
        table, index = (
            pg.psql(f"select 1663 || '/' || oid || '/' || pg_relation_filenode('{name}') "
                    "from pg_database where datname = 'postgres'")
            for name in ("t", "t_pkey")
        )  # fmt: skip
    assert repo.verify_records(since=began)["different"] == 0

    def with_fault(fault: str) -> Any:
        monkeypatch.setenv("ZENITH_DAMAGE", fault)
        repo.restart()
        return repo.verify_records(since=began)

    # A bit of a row, in the main fork and in an index; neither is under a mask.
    for relation, manager, byte in ((table, "Heap", 8180), (index, "Btree", 8100)):
        block = 0 if relation == table else 1
        found = with_fault(f"flip relation {relation} {block} {byte} 1")
        assert found["different"] == len(found["differences"]) > 0, found
        assert manager in {d["resource_manager"] for d in found["differences"]}
        for difference in found["differences"]:
            assert difference["kind"] == "image"
            assert (difference["relation"], difference["block"]) == (relation, block)
            assert f"1 bytes from byte {byte}" in difference["detail"]
    # The image of the map in which the first page's bits are set again lacks those of the second.
    found = with_fault("keep-visibility")
    assert {(d["relation"], d["fork"]) for d in found["differences"]} == {(table, "vm")}, found


def test_gist_pages_that_change_behind_their_image(repo: zenith.Repository, cli: Cli) -> None:
    # A checkpoint between a split and the insertion of its downlink.
    main = repo.branch("main")
    with main.compute() as pg:
        wide = " || ".join(f"md5((a + {n})::text)" for n in range(56))
        pg.psql("create extension btree_gist")
        pg.psql("create table t (a int)")
        pg.psql(f"create index on t using gist (({wide}))")
        stop = threading.Event()

        def checkpoints() -> None:
            while not stop.is_set():
                pg.psql("checkpoint")

        with ThreadPoolExecutor() as threads:
            checkpointing = threads.submit(checkpoints)
            try:
                for number in range(30):
                    before = postgres.received_lsn(pg)
                    rows = f"select {number} * 10000 + n * 57 from generate_series(1, 500) as n"
                    pg.psql(f"insert into t {rows}")
                    found = repo.verify_records(since=before)
                    assert (found["different"], found["differences"]) == (0, []), found
                    if "gist_follow_right" in found["images"]["masked"]:
                        break
                else:
                    pytest.fail("no image of a page on the left of a split")
            finally:
                stop.set()
            checkpointing.result()
        code, found = verified(cli, "main")
        assert (code, found["different"], found["differences"]) == (DONE, 0, []), found


def test_nothing_is_left_when_interrupted(fresh: Path, repo: zenith.Repository, cli: Cli) -> None:
    main = repo.branch("main")
    with main.compute() as pg:
        pgbench.initialise(pg.dsn)
    command = [str(cli_fixture.programs() / "zenith"), "verify", "main"]
    verifying = subprocess.Popen(
        command, cwd=fresh, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait_until(
        "making a server",
        lambda: (
            verifying.poll() is not None or any((repo.path / "verify").glob("*/pgdata/PG_VERSION"))
        ),
    )
    assert "verify" in cli("gc", "--dry-run", "-o", "json")
    os.kill(verifying.pid, signal.SIGINT)
    _, said = verifying.communicate(timeout=60)
    assert (verifying.returncode, said) == (1, "zenith: error: interrupted\n")
    assert not (repo.path / "verify").exists()
    assert not processes.within(repo.path / "verify")
    # Nor is history kept for it.
    assert "verify" not in cli("gc", "--dry-run", "-o", "json")


def test_points_that_are_not_there(repo: zenith.Repository, cli: Cli) -> None:
    assert "no branch" in cli.refused("verify", "nowhere")
    assert "before the beginning" in cli.refused("verify", "main@0/28")
    assert not (repo.path / "verify").exists()
