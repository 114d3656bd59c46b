"""The exceptions of the package: one tree, all under ``Error``.

Each says in one line what is wrong and, where that is known, what to do. Where Python has an
exception for the same thing, ours is one of those too, so that ``except TimeoutError`` means what
it says.
"""


class Error(Exception):
    """Whatever this package raises on its own behalf."""


class InvalidArgument(Error, ValueError):
    """An argument makes no sense whatever the state of the repository."""


class InvalidLsn(InvalidArgument):
    """The text is not an LSN such as ``0/16B3748``."""


class NotFound(Error, LookupError):
    """There is no such repository, branch, compute, relation or page."""


class AlreadyExists(Error):
    """The name is taken."""


class Conflict(Error):
    """The present state forbids it: a second writer, a port in use, a thing still needed."""


class SetupError(Error):
    """This machine or account lacks something: PostgreSQL, a permission, a part of Zenith."""


class ConnectionFailed(Error, ConnectionError):
    """The page server or a compute does not answer."""


class PageServerNotRunning(ConnectionFailed):
    """The page server is not running."""


class PageServerError(Error):
    """The page server refused a command or failed to do it.

    ``sqlstate`` has the five characters of its error code, or is ``None``.
    """

    sqlstate: "str | None" = None


class BelowHorizon(PageServerError):
    """The LSN is older than what is still kept, or before the branch's beginning."""


class Timeout(Error, TimeoutError):
    """Something did not happen in time."""


class LsnTimeout(Timeout):
    """The log did not reach the LSN in time."""


class ProgramFailed(Error):
    """A program that was started ended with an error."""


class QueryFailed(Error):
    """``psql`` ended with an error: a statement failed or the connection was lost."""


class Corrupt(Error):
    """A file of the repository, or a stored page, is damaged."""


class SystemFailed(Error, OSError):
    """The operating system refused."""
