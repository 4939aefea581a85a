"""What a user can get wrong: one or two lines that name the thing, exit code 2, no traceback, nothing trained."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from alignment.launch.entry import main
from tests.end_to_end.data import write_pairs

GOOD = '{"prompt": "a?", "chosen": "b", "rejected": "c"}\n'


def refused(capsys: pytest.CaptureFixture, tmp_path: Path, *overrides: str) -> str:
    """Run and return the error text; the run must not have trained anything."""
    out = tmp_path / "out"
    given = {override.split("=")[0] for override in overrides}
    base = {"model": "tiny", "data.eval_path": "null", "evaluation.prompts": "0", "training.max_steps": "1"}
    arguments = [f"{key}={value}" for key, value in base.items() if key not in given] + list(overrides)
    if not given & {"output_dir", "resume"}:
        arguments.append(f"output_dir={out}")
    assert main(["recipe=dpo", *arguments]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error and len(error.strip().splitlines()) <= 3, error
    assert error.startswith("error: ")
    assert not (out / "summary.json").exists() and not (out / "model").exists()
    return error


def test_data_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def file(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        return f"data.path={tmp_path / name}"

    write_pairs(tmp_path / "pairs.jsonl")
    error = refused(capsys, tmp_path, f"data.path={tmp_path / 'pears.jsonl'}")
    assert "pears.jsonl" in error and "pairs.jsonl" in error  # the nearest name in that folder
    assert "empty.jsonl" in refused(capsys, tmp_path, file("empty.jsonl", b""))
    odd = refused(capsys, tmp_path, file("odd.jsonl", b'{"left": 1, "right": 2}\n'))
    assert "left" in odd and "standard" in odd  # what was seen, and what is known
    broken = gzip.compress(GOOD.encode() * 50)[:-20]
    assert "cut.jsonl.gz" in refused(capsys, tmp_path, file("cut.jsonl.gz", broken))
    assert "UTF-8" in refused(capsys, tmp_path, file("latin.jsonl", GOOD.replace("b", "\xe9").encode("latin-1")))
    stop = "data.on_bad_row=stop"
    for number, (row, word) in enumerate(
        [
            ({"prompt": "", "chosen": "b", "rejected": "c"}, "prompt"),
            ({"prompt": "a?", "chosen": "", "rejected": "c"}, "chosen is empty"),
            ({"prompt": "a?", "chosen": "b", "rejected": "b"}, "same"),
        ]
    ):
        error = refused(capsys, tmp_path, file(f"row{number}.jsonl", (GOOD + json.dumps(row)).encode()), stop)
        assert word in error and f"row{number}.jsonl:2" in error


def test_prompt_over_the_limit(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = f"data.path={write_pairs(tmp_path / 'pairs.jsonl')}"
    error = refused(capsys, tmp_path, path, "data.max_prompt_length=3")
    assert "data.max_prompt_length=3" in error
    error = refused(capsys, tmp_path, path, "data.max_prompt_length=3", "data.on_bad_row=stop")
    assert "tokens, data.max_prompt_length is 3" in error


def test_names(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert "loss.betta" in refused(capsys, tmp_path, "+loss.betta=1")
    assert "did you mean sigmoid" in refused(capsys, tmp_path, "loss.name=sigmiod")
    assert "did you mean tiny" in refused(capsys, tmp_path, "model.path=tyni")
    assert "did you mean dpo" in refused(capsys, tmp_path, "method=dpoo")
    assert "plain_words" in refused(
        capsys, tmp_path, "evaluation.score=plain_word", "evaluation.prompts=4", "data.eval_path=everyday"
    )


def test_folders(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no such run folder" in refused(capsys, tmp_path, f"resume={tmp_path / 'none'}")
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused(capsys, tmp_path, f"output_dir={tmp_path / 'file' / 'run'}")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: os.terminal_size((0, 0)) and _Usage())
    assert "not enough space" in refused(capsys, tmp_path)


class _Usage:
    total, used, free = 10**12, 10**12, 10**6


def test_no_space_left_while_probing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    from alignment.errors import UserError
    from alignment.launch import folders

    class Full:
        def __enter__(self):
            return open("/dev/full", "wb")

        def __exit__(self, *error):
            return False

    original = folders.tempfile.NamedTemporaryFile
    folders.tempfile.NamedTemporaryFile = lambda **kwargs: Full()
    try:
        with pytest.raises(UserError, match="No space left"):
            folders.probe_writable(tmp_path)
    finally:
        folders.tempfile.NamedTemporaryFile = original
