"""What a table of the workload looks like, and what is in it.

A row is an id with two counters. All other columns are generated from these by the server, so that
knowing the three numbers is knowing the row, and any wrong byte can be told.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal, NoReturn

from .report import Failure

Row = tuple[int, int]
"""``rev`` and ``note`` of a row. Other columns depend on ``rev``, but none on ``note``: a change of
that alone can be a HOT update."""

Rows = Mapping[int, Row]
Persistence = Literal["logged", "unlogged"]

# What a database needs before tables can be made in it.
PREPARE_DATABASE = """
create extension amcheck;
create extension pg_visibility;
create function noise(a int, b int, pieces int) returns text immutable strict language sql as
    $$ select string_agg(md5(a::text || ':' || b::text || ':' || n::text), '')
       from generate_series(0, pieces) as n $$;
"""

# The wide column in three sizes, of which the last one is kept out of line, hardly compressed.
BODIES = {
    "small": "md5(id::text || ':' || rev::text)",
    "medium": "repeat(md5(id::text || ':' || rev::text), 1 + (id * 31 + rev * 17) % 60)",
    "large": "noise(id, rev, (id * 31 + rev * 17) % 150)",
}

COLUMNS = {
    "grp": ("int", "(id * 7 + rev) % 13"),
    "tag": ("text", "md5(((id + rev) % 500)::text)"),
    "words": (
        "tsvector",
        "array_to_tsvector(array['w' || (id % 50)::text, 'r' || (rev % 20)::text, 'x'])",
    ),
    "nums": ("int[]", "array[id % 20, rev % 10 + 20, 40]"),
    "span": ("int4range", "int4range(id % 1000, id % 1000 + rev % 10 + 1)"),
    "place": ("point", "point(id % 100, rev % 100)"),
}

# One question for each type of index, and for those that have one a special shape of it.
QUESTIONS = (
    "id between 100 and 900",
    "id > 1500",
    "grp = 3",
    "grp in (1, 5, 12)",
    "tag = md5('77')",
    "words @@ 'w7'::tsquery",
    "words @@ 'r1 & w3'::tsquery",
    "nums @> array[7]",
    "nums && array[22, 3]",
    "span && int4range(100, 150)",
    "span @> 500",
    "place <@ box(point(0, 0), point(30, 2))",
    "place ~= point(7, 1)",
)

INDEXES = {
    "btree_grp": "btree (grp)",
    "btree_plain": "btree (grp) with (deduplicate_items = off)",
    "btree_include": "btree (rev, id) include (note)",
    "btree_tag": "btree (tag)",
    "btree_partial": "btree (id) where grp = 3",
    "btree_body": "btree (substr(body, 1, 900))",
    "hash_tag": "hash (tag)",
    "hash_id": "hash (id)",
    "gin_words": "gin (words)",
    "gin_words_slow": "gin (words) with (fastupdate = off)",
    "gin_nums": "gin (nums) with (gin_pending_list_limit = 64)",
    "gist_span": "gist (span)",
    "gist_place": "gist (place)",
    "spgist_place": "spgist (place)",
    "spgist_span": "spgist (span)",
    "spgist_tag": "spgist (tag)",
    "brin_id": "brin (id) with (pages_per_range = 2)",
    "brin_auto": "brin (grp) with (pages_per_range = 1, autosummarize = on)",
    "brin_bloom": "brin (tag text_bloom_ops) with (pages_per_range = 4)",
    "brin_multi": "brin (rev int4_minmax_multi_ops) with (pages_per_range = 4)",
    "brin_inclusion": "brin (span) with (pages_per_range = 2)",
}


@dataclasses.dataclass(frozen=True)
class Table:
    """One table at one moment. Its rows are never changed in place."""

    persistence: Persistence
    body: str
    made: int = 0
    """Another number whenever the table is emptied or rewritten, which snapshots do not survive."""
    rows: Rows = dataclasses.field(default_factory=dict, repr=False)

    def with_rows(self, rows: Rows) -> "Table":
        """The same table with other rows."""
        return dataclasses.replace(self, rows=rows)

    def wrong_payload(self) -> str:
        """A condition that holds for a row whose generated columns are not what they must be."""
        columns = [f"body is distinct from {BODIES[self.body]}"]
        for name, (_, expression) in COLUMNS.items():
            if name == "place":  # A point has no ordinary equality.
                columns.append(f"not coalesce(place ~= {expression}, false)")
            else:
                columns.append(f"{name} is distinct from {expression}")
        return " or ".join(columns)


def tell_difference(what: str, expected: Rows, found: Rows) -> NoReturn:
    """Raises a failure that tells which rows are wrong."""
    lost = sorted(set(expected) - set(found))
    new = sorted(set(found) - set(expected))
    other = sorted(n for n in set(found) & set(expected) if found[n] != expected[n])
    raise Failure(
        f"{what}: {len(found)} rows where there must be {len(expected)}; "
        f"lost {lost[:10]} ({len(lost)}), not to be there {new[:10]} ({len(new)}), "
        f"other {[(n, expected[n], found[n]) for n in other[:5]]} ({len(other)})"
    )


def create_table(name: str, table: Table, options: str = "") -> str:
    """The statement that makes an empty one."""
    unlogged = "unlogged " if table.persistence == "unlogged" else ""
    generated = [("body", ("text", BODIES[table.body])), *COLUMNS.items()]
    columns = ", ".join(
        f"{column} {kind} generated always as ({expression}) stored"
        for column, (kind, expression) in generated
    )
    return (
        f"create {unlogged}table {name} "
        f"(id int primary key, rev int not null, note bigint not null, {columns}) {options}"
    )


Key = tuple[str, str]
"""Names of a database and of a table or sequence in it."""

LARGE_OBJECTS = "(large objects)"
"""Name of the table that stands for a database's large objects: an id and a ``rev`` each."""


@dataclasses.dataclass(frozen=True)
class Contents:
    """All that is committed at one moment. Never changed in place."""

    databases: frozenset[str] = frozenset()
    tables: Mapping[Key, Table] = dataclasses.field(default_factory=dict)
    sequences: Mapping[Key, int] = dataclasses.field(default_factory=dict)
    """The highest number that each has given out."""
    tablespaces: frozenset[str] = frozenset()
    timestamps: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    """When transactions have committed, by their ids, if the servers keep that."""

    def after_crash(self) -> "Contents":
        """The same without what a crash, or a branch, takes away: rows of unlogged tables."""
        tables = {
            key: table.with_rows({}) if table.persistence == "unlogged" else table
            for key, table in self.tables.items()
        }
        return dataclasses.replace(self, tables=tables)

    def with_timestamp(self, xid: str, timestamp: str) -> "Contents":
        """The same with one more commit."""
        return dataclasses.replace(self, timestamps={**self.timestamps, xid: timestamp})

    def in_database(self, database: str) -> dict[str, Table]:
        """Its tables, by name."""
        return {name: table for (db, name), table in sorted(self.tables.items()) if db == database}

    def with_database(self, database: str, template: str | None) -> "Contents":
        """The same with one more database, a copy of ``template``, unlogged rows too."""
        tables, sequences = dict(self.tables), dict(self.sequences)
        for (db, name), table in self.tables.items():
            if db == template:
                tables[database, name] = table
        for (db, name), number in self.sequences.items():
            if db == template:
                sequences[database, name] = number
        # Large objects are there in every database.
        tables.setdefault((database, LARGE_OBJECTS), Table("logged", "small"))
        return dataclasses.replace(
            self, databases=self.databases | {database}, tables=tables, sequences=sequences
        )

    def without_database(self, database: str) -> "Contents":
        """The same without it."""
        return dataclasses.replace(
            self,
            databases=self.databases - {database},
            tables={key: table for key, table in self.tables.items() if key[0] != database},
            sequences={key: n for key, n in self.sequences.items() if key[0] != database},
        )
