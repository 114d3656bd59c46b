#!/usr/bin/env python3
"""Prints the packages of poetry.lock as a pip requirements file with hashes.

Poetry itself is not needed to install what it locked, and pip asks whatever index the machine is
set up to use.
"""

import sys
import tomllib


def main() -> None:
    with open(sys.argv[1], "rb") as file:
        lock = tomllib.load(file)
    for package in lock["package"]:
        if "dev" not in package["groups"]:
            continue
        markers = package.get("markers", "")
        if isinstance(markers, dict):
            markers = markers.get("dev", "")
        condition = f" ; {markers}" if markers else ""
        hashes = "".join(f" \\\n    --hash={file['hash']}" for file in package["files"])
        print(f"{package['name']}=={package['version']}{condition}{hashes}")


if __name__ == "__main__":
    main()
