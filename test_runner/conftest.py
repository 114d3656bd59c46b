"""Makes the fixtures known to every test. Each of them is in a file of its own in ``fixtures``."""

pytest_plugins = [
    "fixtures.scratch",
    "fixtures.cli",
    "fixtures.repository",
    "fixtures.verify",
    "fixtures.counters",
]
