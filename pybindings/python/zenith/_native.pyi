from collections.abc import Callable
from datetime import timedelta
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, final, overload

import psycopg

from .checkpoint import Checkpoint
from .compacted import Compacted
from .hydrated import Hydrated
from .verification import FilesVerification, RecordsVerification, Verification

@final
class Lsn:
    """A position in the write-ahead log, immutable and ordered.

    Made from another one, from text such as ``"0/16B3748"``, or from the 64-bit number. Moved by
    adding or subtracting a number of bytes; the difference of two is a number of bytes.
    """

    def __new__(cls, value: Lsn | str | int) -> Lsn: ...
    def __int__(self) -> int: ...
    def __bool__(self) -> bool: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object) -> bool: ...
    def __lt__(self, other: Lsn) -> bool: ...
    def __le__(self, other: Lsn) -> bool: ...
    def __gt__(self, other: Lsn) -> bool: ...
    def __ge__(self, other: Lsn) -> bool: ...
    def __add__(self, bytes: int) -> Lsn: ...
    def __radd__(self, bytes: int) -> Lsn: ...
    @overload
    def __sub__(self, other: Lsn) -> int: ...
    @overload
    def __sub__(self, other: int) -> Lsn: ...
    def __getnewargs__(self) -> tuple[int]: ...

@final
class Repository:
    """A repository: branches, and the page server that keeps their history.

    As a context manager it starts the page server and, if it was the one to start it, stops it at
    the end.
    """

    @staticmethod
    def init(
        path: str | PathLike[str], *, pg_bin_dir: str | PathLike[str] | None = None
    ) -> Repository:
        """Makes a repository in the folder ``path``, with a new database cluster as ``main``."""
    @staticmethod
    def open(path: str | PathLike[str]) -> Repository:
        """The repository in the folder ``path``, or at it."""
    @property
    def path(self) -> Path:
        """Its own directory, ``.zenith``."""
    @property
    def pid(self) -> int | None:
        """The page server's process, if it runs."""
    @property
    def connstr(self) -> str:
        """Where the page server can be reached over TCP."""
    @property
    def log(self) -> Path:
        """The page server's log."""
    def start(self, port: int | None = None) -> bool:
        """Starts the page server and waits until it serves; ``False`` if it ran already."""
    def stop(self, *, immediate: bool = False) -> bool:
        """Stops the page server, or kills it if ``immediate``; ``False`` if it did not run."""
    def restart(self, *, immediate: bool = False) -> None:
        """Stops and starts the page server; computes only wait meanwhile."""
    def status(self) -> dict[str, str]:
        """What the page server says of itself; empty if it does not run."""
    def branches(self) -> list[Branch]:
        """All branches, sorted by name."""
    def branch(self, name: str) -> Branch:
        """The branch with this name."""
    def create_branch(
        self, name: str, at: _Point | None = None, *, expires_in: timedelta | None = None
    ) -> Branch:
        """Makes a branch at a point of another's history: ``("main", lsn)``, ``"main@0/16B3748"``.

        Without one, at the end of the default branch. Nothing is copied. See ``Branch.expire_in``.
        """
    def tags(self) -> list[Tag]:
        """All tags, sorted by name."""
    def tag(self, name: str) -> Tag:
        """The tag with this name."""
    def create_tag(self, name: str, at: _Point | None = None) -> Tag:
        """Gives a point a name, which can stand wherever a point can; no branch can have it then.

        Without a point, the end of the default branch. A branch that has tags cannot be deleted.
        """
    def delete_tag(self, name: str) -> None:
        """Deletes a tag."""
    def computes(self) -> list[Compute]:
        """All computes, sorted by name."""
    def compute(self, name: str) -> Compute:
        """The compute with this name."""
    def verify(self, point: _Point | None = None, *, deep: bool = False) -> Verification:
        """Compares everything the page server has at a point, by default the default branch's end,
        with what stock PostgreSQL makes of the same WAL.

        If ``deep``, runs ``pg_amcheck`` on a throw-away compute, too, compares dumps of that and of
        the stock server, and computes the checksums of all pages.
        """
    def verify_files(self, branch: str | None = None) -> FilesVerification:
        """Reads every file of a branch, by default the default one, and of its ancestors, and names
        what is damaged. Needs no page server."""
    def verify_records(
        self, point: _Point | None = None, *, since: Lsn | str | int | None = None
    ) -> RecordsVerification:
        """Compares pages with the image that each WAL record has of them, at that record's LSN.

        There are such images where ``wal_consistency_checking`` was on, and full-page images.
        Records that end at or before ``since`` are left out.
        """
    def __enter__(self) -> Repository: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

@final
class Tag:
    """A name for a point in history, as it was when it was asked for."""

    @property
    def name(self) -> str: ...
    @property
    def branch(self) -> str | None:
        """The branch whose history it is a point of; ``None`` while that cannot be read."""
    @property
    def timeline(self) -> str:
        """The id of that branch's line of history."""
    @property
    def lsn(self) -> Lsn: ...
    @property
    def created(self) -> str:
        """When it was made, as in ``2026-11-22T10:00:00Z``."""
    def delete(self) -> None: ...

@final
class Branch:
    """A name for one line of history, as it was when it was asked for."""

    @property
    def name(self) -> str: ...
    @property
    def timeline(self) -> str:
        """The id of its line of history."""
    @property
    def ancestor(self) -> tuple[str, Lsn] | None:
        """The line of history that it left, and where; ``None`` for a root."""
    @property
    def is_default(self) -> bool: ...
    @property
    def is_protected(self) -> bool:
        """Whether it cannot be deleted."""
    @property
    def expires(self) -> str | None:
        """When the page server may delete it by itself, as in ``2026-11-22T10:00:00Z``."""
    @property
    def retention(self) -> str:
        """How much of its history is kept, as in ``7d``, ``10GB``, ``7d,10GB``.

        Or ``unlimited``, or ``default``: what ``zenith.toml`` says.
        """
    def retain(self, retention: str) -> Branch:
        """Keeps so much of its history, in words as ``retention`` has them.

        What is gone stays gone.
        """
    def protect(self, protected: bool = True) -> Branch:
        """Lets nobody delete it, nor let it expire, until that is taken back."""
    def expire_in(self, lifetime: timedelta | None) -> None:
        """Lets the page server delete it by itself so long from now, or never if ``None``.

        It goes only while nothing needs it: no branch or tag, no compute that runs on it, and
        nobody who reads its pages.
        """
    @property
    def stop(self) -> tuple[Lsn | None, str] | None:
        """Up to where all WAL is there, and why no more was taken in; as of when asked for."""
    @property
    def last_record_lsn(self) -> Lsn:
        """The end of the last WAL record that the page server has of it now."""
    def compute(
        self,
        name: str | None = None,
        *,
        lsn: Lsn | str | int | None = None,
        durability: Literal["local", "pageserver"] | None = None,
        port: int | None = None,
    ) -> Compute:
        """The compute with this name, by default the branch's own, made if there is none.

        At the branch's end it continues the branch, and there can be one such. At an ``lsn`` it is
        detached: what it writes goes nowhere.
        """
    def get_page(
        self,
        spc: int,
        db: int,
        rel: int,
        block: int,
        *,
        fork: Literal["main", "fsm", "vm", "init"] = "main",
        lsn: Lsn | str | int | None = None,
    ) -> bytes:
        """One page as it was at ``lsn``, by default at the branch's end. Needs no compute."""
    def get_pages(
        self,
        spc: int,
        db: int,
        rel: int,
        first: int,
        count: int,
        *,
        fork: Literal["main", "fsm", "vm", "init"] = "main",
        lsn: Lsn | str | int | None = None,
    ) -> list[bytes]:
        """``count`` consecutive pages."""
    def rel_size(
        self,
        spc: int,
        db: int,
        rel: int,
        *,
        fork: Literal["main", "fsm", "vm", "init"] = "main",
        lsn: Lsn | str | int | None = None,
    ) -> int | None:
        """A relation's length in blocks; ``None`` if there is no such relation or fork."""
    def checkpoint(self) -> Checkpoint:
        """Puts its history into layers, up to its end, so that the page server starts without
        reading its WAL."""
    @property
    def is_detaching(self) -> bool:
        """Whether it is being detached, as of when asked for."""
    def detach(self, *, wait: bool = False) -> Branch:
        """Lets it need no longer what it was made from, which can be deleted then.

        What it needs of that is copied in the background, or before this returns. Its history
        begins where it was made. Refused while a tag or a compute needs what was before.
        """
    def compact(self) -> Compacted:
        """Puts its history into few layers, with an image of all there is at its end."""
    def rename(self, name: str) -> Branch: ...
    def delete(self, *, reparent: bool = False) -> None:
        """Deletes it; refused while other branches stand on it, or keeping its history for them."""

@final
class Compute:
    """A stock PostgreSQL server on a branch.

    As a context manager it is started, and stopped at the end; its directory stays for the next
    start until ``destroy``.
    """

    @property
    def name(self) -> str: ...
    @property
    def branch(self) -> str: ...
    @property
    def timeline(self) -> str: ...
    @property
    def base_lsn(self) -> Lsn:
        """The LSN at which it reads pages that it does not have."""
    @property
    def mode(self) -> Literal["read-write", "detached"]: ...
    @property
    def durability(self) -> Literal["local", "pageserver"]: ...
    @property
    def port(self) -> int: ...
    @property
    def dsn(self) -> str:
        """A connection URI of its database ``postgres``."""
    @property
    def pgdata(self) -> Path: ...
    @property
    def log(self) -> Path: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def state(self) -> Literal["running", "busy", "stopped"]: ...
    @property
    def fenced(self) -> bool:
        """Whether another compute writes its branch by now."""
    def start(self) -> bool:
        """Starts it and waits until it accepts connections; ``False`` if it ran already."""
    def stop(self, *, immediate: bool = False) -> bool:
        """Stops it; ``False`` if it did not run."""
    def restart(self, *, immediate: bool = False) -> None: ...
    def kill(self) -> None:
        """Kills its first process with signal 9; the others notice and follow."""
    def advance_base(self, lsn: Lsn | str | int | None = None) -> Lsn:
        """Moves its base LSN forward, to ``lsn`` or as far as the page server has its WAL.

        Possible at any time; the page server need not keep history before it for this compute.
        Gives the base LSN that it has now.
        """
    def hydrate(self, progress: Callable[[int, int], object] | None = None) -> Hydrated:
        """Fetches every page that it does not have yet, while it runs or is stopped.

        From then on it asks the page server for no page. What breaks off is taken up by doing it
        again. ``progress`` is called often with the bytes that have come and those that were absent
        at first.
        """
    def destroy(self) -> None:
        """Stops it at once and removes its directory; what the page server has received stays."""
    def psql(self, sql: str, *, dbname: str = "postgres", user: str | None = None) -> str:
        """Runs statements with psql; returns what they print, unaligned."""
    def connect(self, *, dbname: str = "postgres", **options: Any) -> psycopg.Connection[Any]:
        """A psycopg connection; options are those of ``psycopg.connect``."""
    def verify(self) -> Verification:
        """Compares its whole data directory with what the page server has at its end.

        It must have been stopped cleanly, and continue its branch.
        """
    def __enter__(self) -> Compute: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

_Point = str | tuple[str | Branch, Lsn | str | int] | Branch | Tag
