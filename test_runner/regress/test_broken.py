"""The suite's own behaviour when a test fails: the folder is kept, and nothing is left running."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures import processes

SUITE = Path(__file__).parents[1]

BROKEN = """
import subprocess

def test_it(scratch):
    print(f"folder: {scratch}")
    (scratch / "evidence").touch()
    if %(leave_running)s:
        process = subprocess.Popen(["sleep", "600"], cwd=scratch, start_new_session=True)
        print(f"process: {process.pid}")
    assert %(holds)s
"""


@pytest.mark.parametrize("holds", [False, True])
@pytest.mark.parametrize("leave_running", [False, True])
def test_cleanup(tmp_path: Path, holds: bool, leave_running: bool) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    test = tmp_path / "test_it.py"
    test.write_text(BROKEN % {"holds": holds, "leave_running": leave_running})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "-p", "fixtures.scratch", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SUITE)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    is_good = holds and not leave_running
    assert (done.returncode == 0) is is_good, done.stdout
    found = re.search("^folder: (.+)$", done.stdout, re.M)
    assert found, done.stdout
    folder = Path(found[1])
    if is_good:
        assert not folder.exists()
    else:
        assert (folder / "evidence").exists()
        assert f"kept: {folder}" in done.stdout
        (folder / "evidence").unlink()
        folder.rmdir()
    process = re.search(r"^process: (\d+)$", done.stdout, re.M)
    assert bool(process) is leave_running
    if process:
        assert not processes.is_alive(int(process[1]))
        if holds:
            assert "left running" in done.stdout
