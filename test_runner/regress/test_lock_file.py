"""poetry.lock is in step with pyproject.toml, and binds nobody to an index."""

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def read(name: str) -> dict[str, Any]:
    """A TOML file of the project's root."""
    return tomllib.loads((ROOT / name).read_text())


def test_in_step() -> None:
    # What Poetry hashes: the parts of both tables that decide what is installed.
    project, poetry = read("pyproject.toml")["project"], read("pyproject.toml")["tool"]["poetry"]
    of_project = ("requires-python", "dependencies", "optional-dependencies")
    of_poetry = ("dependencies", "source", "extras", "dev-dependencies", "group")
    relevant = {
        "project": {key: project[key] for key in of_project if key in project},
        "tool": {"poetry": {key: poetry[key] for key in of_poetry if key in poetry}},
    }
    digest = hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()
    assert read("poetry.lock")["metadata"]["content-hash"] == digest, "run scripts/lock-python"


def test_names_no_index() -> None:
    for package in read("poetry.lock")["package"]:
        assert "source" not in package, package["name"]
        assert package["files"], package["name"]
