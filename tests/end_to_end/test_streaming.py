"""A streamed run on one process and on two is the same run; and one that goes on takes the same steps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from alignment.data import builtin
from alignment.launch.entry import main
from tests.end_to_end.test_judgment_recipes import same_weights
from tests.launching import launch

EVERYDAY = builtin.ROOT / "everyday"
RUN = ["recipe=dpo", "model=tiny", f"data.path={EVERYDAY / 'train.jsonl'}", f"data.eval_path={EVERYDAY / 'test.jsonl'}"]
RUN += ["data.eval_limit=4", "data.streaming=true", "data.shuffle_buffer=50", "training.max_steps=12"]
RUN += [
    "model.dtype=float32",
    "training.batch_size=6",
    "training.save_steps=9",
    "training.bf16=false",
    "evaluation.prompts=0",
]


def losses(folder: Path) -> list[float]:
    rows: list[dict[str, Any]] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.slow
def test_one_process_two_and_going_on(tmp_path: Path) -> None:
    one, two, on = tmp_path / "one", tmp_path / "two", tmp_path / "on"
    assert main([*RUN, f"output_dir={one}"]) == 0
    done = launch(["train.py", *RUN, f"output_dir={two}"], processes=2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(losses(one)) == 12 and losses(two) == pytest.approx(losses(one), abs=1e-5)

    shutil.copytree(two, on)  # in the second block of 50
    done = launch(["train.py", f"resume={on / 'checkpoints' / 'checkpoint-9'}"], processes=2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert losses(on) == losses(two) and same_weights(on, two)
