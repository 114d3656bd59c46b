"""``zenith verify --files`` finds a flipped bit in any file, whether or not it is asked for."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import zenith
from fixtures.cli import DIFFERENT, DONE, Cli

FILL = "create table t as select n, repeat('x', 100) x from generate_series(1, 20000) n"


@contextlib.contextmanager
def flipped(file: Path, *places: int) -> Iterator[None]:
    """A bit of the byte at each of the places is another one in the block."""
    good = file.read_bytes()
    bad = bytearray(good)
    for place in places:
        bad[place] ^= 0x10
    file.write_bytes(bad)
    try:
        yield
    finally:
        file.write_bytes(good)


def files_damaged(cli: Cli, branch: str = "dev") -> dict[str, str]:
    """What is said of which file."""
    done = cli.run("verify", branch, "--files", "-o", "json")
    report = json.loads(done.stdout)
    assert done.returncode == (DIFFERENT if report["different"] else DONE), done.stderr
    return {found["name"]: found["detail"] for found in report["differences"]}


def test_a_flipped_bit_is_found_in_every_kind_of_file(
    repo: zenith.Repository, main: zenith.Branch, cli: Cli, allowed_log: list[str]
) -> None:
    start = int(main.last_record_lsn) % (1 << 24)
    with main.compute() as pg:
        pg.psql(FILL)
        layer = main.checkpoint()["layers"][0]["name"]
        pg.psql("update t set n = -n where n < 5000")
        rel = int(pg.psql("select relfilenode from pg_class where relname = 't'"))
        db = int(pg.psql("select oid from pg_database where datname = 'postgres'"))
        dev = repo.create_branch("dev")
        follow = (repo.path / "timelines" / main.timeline / "follow.toml").read_bytes()
    size = main.rel_size(1663, db, rel)
    assert size
    pages = [main.get_page(1663, db, rel, block) for block in range(size)]
    end = main.last_record_lsn
    repo.stop()
    assert files_damaged(cli) == {}
    folder = repo.path / "timelines" / main.timeline
    (folder / "follow.toml").write_bytes(follow)
    (wal,) = (file for file in (folder / "wal").iterdir() if len(file.name) == 24)
    image = next((folder / "layers").glob("image__*"))
    # The last byte of the WAL may be one of padding.
    last = int(end) % (1 << 24) - 20
    middle = (start + last) // 2
    cases: list[tuple[Path, list[int]]] = [
        (folder / "manifest", [3, -2]),
        (folder / "pg_control", [1, 100]),
        (folder / "follow.toml", [-5]),
        (folder / "writer.toml", [-5]),
        (folder / "wal" / "flushed", [2]),
        (image, [10, image.stat().st_size // 2, -1]),
        (folder / "layers" / layer, [5, -1, (folder / "layers" / layer).stat().st_size // 2]),
        (wal, [5, 10, middle, last]),
        (repo.path / "timelines" / dev.timeline / "manifest", [-10]),
        (repo.path / "refs" / "branches" / "dev", [7]),
    ]
    for file, places in cases:
        for place in places:
            with flipped(file, place):
                found = files_damaged(cli)
                assert str(file.relative_to(repo.path)) in found, (file, place, found)
    layer_file = folder / "layers" / layer
    with flipped(wal, middle):
        (detail,) = files_damaged(cli).values()
        assert "offset" in detail
        assert "durable" in detail
    assert files_damaged(cli) == {}

    # Whoever needs what is damaged is refused, whoever does not is served.
    allowed_log.append("damaged|checksum|cannot be read")
    every = range(4000, layer_file.stat().st_size - 4000, 8192)
    with flipped(layer_file, *every), repo:
        refused = 0
        for block, page in enumerate(pages):
            try:
                assert main.get_page(1663, db, rel, block, lsn=end) == page
            except zenith.Error:
                refused += 1
        assert refused
        # The whole comparison begins with the files, and says what it found.
        report = repo.verify(("main", end))
        assert report["stored_files"]["different"] == report["different"] == 1
        assert (report["differences"][0]["name"] or "").endswith(layer)
