"""What ``zenith verify`` hands to its stock server: ``initdb``'s files and the compute's WAL.

As they were, or both sides of its comparison could have the same fault.
"""

import subprocess
from pathlib import Path

from fixtures import data_directory, postgres
from fixtures.cli import programs

SEGMENT_BYTES = 1 << 24
# What the page server says anew: that the server crashed, and where folders of tablespaces are.
CHANGED = {"global/pg_control", "pg_wal"}


def files_in(folder: Path) -> dict[str, bytes]:
    """All files of a data directory but those that it is said to have anew."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    names = {path.relative_to(folder): path for path in paths}
    return {
        str(name): path.read_bytes()
        for name, path in names.items()
        if str(name) not in CHANGED and name.parts[0] not in CHANGED
    }


def wal_in(folder: Path, first: int, end: int) -> bytes:
    """The WAL from one position to another, of a server on PostgreSQL's timeline 1."""
    found = b""
    for segment in range(first // SEGMENT_BYTES, (end - 1) // SEGMENT_BYTES + 1):
        name = f"00000001{segment // 256:08X}{segment % 256:08X}"
        found += (folder / name).read_bytes().ljust(SEGMENT_BYTES, b"\0")
    start = first % SEGMENT_BYTES
    return found[start : start + end - first]


def test_nothing_of_ours_is_in_it(scratch: Path) -> None:
    repo, base = data_directory.init_and_keep(scratch)
    with repo:
        main = repo.branch("main")
        first = main.last_record_lsn
        assert first == data_directory.checkpoint_end(base)
        with main.compute() as pg:
            pg.psql("create table t as select n, repeat('x', 500) from generate_series(1, 40000) n")
            pg.psql("update t set n = n + 1 where n % 3 = 0")
            end = postgres.received_lsn(pg)
            assert end - first > SEGMENT_BYTES
            into = scratch / "into"
            into.mkdir(mode=0o700)
            postgres.give_away(into)
            command: list[str | Path] = [programs() / "pageserver", "materialize"]
            command += ["--repo", repo.path, "--into", into]
            command += ["--timeline", main.timeline, "--lsn", str(end)]
            subprocess.run(command, check=True, capture_output=True)
            assert wal_in(into / "pg_wal", int(first), int(end)) == wal_in(
                pg.pgdata / "pg_wal", int(first), int(end)
            )
        ours, theirs = files_in(into), files_in(base)
        forks = data_directory.forks_in(base)
        assert {str(file.relative_to(base)) for fork in forks for file in fork.files} <= set(ours)
        assert [n for n in ours if ours[n] != theirs.get(n)] == []
