"""An installation without an extra says which one it lacks."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from aggregator.runtimes.local import packages
from tests.support import ROOT

pytestmark = pytest.mark.once


def test_without_the_command_line_the_extra_is_named() -> None:
    program = "import sys; sys.modules['typer'] = None; from aggregator.__main__ import main; main()"

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (
        2,
        "aggregator: the command line is not installed: install data-aggregator with the extra [cli]\n",
    )


def test_without_pip_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "environment", with_pip=False, symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "environment" / "bin" / "python"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "a.txt").write_text("one==1.0 \\\n")

    with pytest.raises(packages.InstallError, match=r"pip, which is missing: install data-aggregator with \[local\]"):
        packages.install(tmp_path / "a.txt", "one", called="the one")
