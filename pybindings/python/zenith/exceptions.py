"""The exceptions of the package: one tree, all under ``Error``.

Each says what happened in one line. Where Python has an exception for the same thing, ours is one
of those too, so that ``except TimeoutError`` means what it says.
"""


class Error(Exception):
    """Whatever this package raises on its own behalf."""


class InvalidLsn(Error, ValueError):
    """The text is not an LSN such as ``0/16B3748``."""
