"""The data layer needs no torch, so that `align data check` starts at once and on any machine."""

from __future__ import annotations

import subprocess
import sys

import pytest


def test_data_layer_does_not_import_torch() -> None:
    code = (
        "import sys, datasets\n"
        "if 'torch' in sys.modules: sys.exit(3)\n"
        "import alignment.data.checks, alignment.data.convert, alignment.data.readers, alignment.data.views\n"
        "from alignment.data.example import Example\n"
        "from alignment.data.examples import Examples\n"
        "assert len(list(Examples.write([Example([])]).shuffle(0))) == 1\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("this version of datasets imports torch itself")
    assert done.returncode == 0, done.stderr
