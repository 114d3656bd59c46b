"""Sequences: no number twice on a line of history, whatever crashes; a branch goes on by itself."""

import zenith
from fixtures import postgres
from fixtures.verify import Verify

SEQUENCES = """
create sequence plain;
create sequence cached cache 20;
create sequence stepping increment 5 minvalue 5 maxvalue 60 cycle;
create table t (id bigserial primary key, v text);
"""


def test_over_crashes_and_branches(
    repo: zenith.Repository, main: zenith.Branch, verify: Verify
) -> None:
    seen: dict[str, list[int]] = {"plain": [], "cached": [], "t_id_seq": []}

    def draw(pg: zenith.Compute, times: int) -> None:
        for name, numbers in seen.items():
            drawn = pg.psql(f"select nextval('{name}') from generate_series(1, {times})")
            numbers += map(int, drawn.splitlines())

    with main.compute(durability="pageserver") as pg:
        postgres.script(pg.dsn, SEQUENCES)
        for times in (1, 40, 3):
            draw(pg, times)
            # Only what a transaction has written is waited for; a number alone is such a thing.
            pg.psql("insert into t (v) values ('x')")
            pg.kill()
            pg.start()
        draw(pg, 5)
        lsn = postgres.received_lsn(pg)
        at_lsn = {name: numbers[-1] for name, numbers in seen.items()}
        draw(pg, 50)
        pg.kill()
    # The machine is lost: what was drawn before the last commit that was acknowledged counts.
    pg.destroy()
    with main.compute() as pg:
        draw(pg, 5)
        pg.psql("select setval('plain', 1000); select setval('cached', 5, false)")
        pg.psql("alter sequence stepping restart with 55")
        assert pg.psql("select nextval('stepping') from generate_series(1, 3)") == "55\n60\n5"
        with pg.connect() as connection:
            connection.execute("select setval('plain', 2000)")
            connection.execute("alter sequence stepping restart with 30")
            connection.rollback()
        pg.psql("insert into t (v) values ('y')")
        end = postgres.received_lsn(pg)
    for name, numbers in seen.items():
        assert len(set(numbers)) == len(numbers), name
        assert numbers == sorted(numbers), name
    with repo.create_branch("dev", at=("main", lsn)).compute() as pg:
        for name, last in at_lsn.items():
            drawn = int(pg.psql(f"select nextval('{name}')"))
            # PostgreSQL logs 32 ahead, or what it caches and 32.
            assert last < drawn <= last + 20 + 33, name
        assert pg.psql("select nextval('stepping')") == "5"
    with repo.create_branch("end", at=("main", end)).compute() as pg:
        # setval is not undone, restart is.
        assert int(pg.psql("select nextval('plain')")) >= 2001
        assert pg.psql("select nextval('cached')") == "5"
        assert int(pg.psql("select nextval('stepping')")) in range(5, 61, 5)
        assert int(pg.psql("insert into t (v) values ('z') returning id")) > seen["t_id_seq"][-1]
    verify(f"main@{lsn}", "main", "dev")
