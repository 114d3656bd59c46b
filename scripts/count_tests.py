#!/usr/bin/env python3
"""Adds up the results of cargo test and pytest: prints "N passed, N failed, N skipped".

Exits with 1 if anything failed, or if there is nothing to count.
"""

import re
import sys
import xml.etree.ElementTree as ET


def cargo(path: str) -> tuple[int, int, int]:
    with open(path, encoding="utf-8", errors="replace") as file:
        found = re.findall(
            r"^test result: \S+ (\d+) passed; (\d+) failed; (\d+) ignored", file.read(), re.M
        )
    passed, failed, skipped = (sum(int(row[i]) for row in found) for i in range(3))
    return passed, failed, skipped


def pytest(path: str) -> tuple[int, int, int]:
    passed = failed = skipped = 0
    for suite in ET.parse(path).getroot().iter("testsuite"):
        bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        left_out = int(suite.get("skipped", 0))
        passed += int(suite.get("tests", 0)) - bad - left_out
        failed += bad
        skipped += left_out
    return passed, failed, skipped


def main() -> int:
    both = zip(cargo(sys.argv[1]), pytest(sys.argv[2]), strict=True)
    passed, failed, skipped = (a + b for a, b in both)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
