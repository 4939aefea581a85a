"""The growing file: whole batches only, its own settings only, one writer only."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from alignment.errors import UserError
from alignment.resumable import ResumableFile, stoppable

SETTINGS = {"command": "test", "n": 1, "nested": {"path": "a"}}


def rows_of(path: Path) -> list[int]:
    return [json.loads(line)["row"] for line in path.read_text().splitlines()]


def write(path: Path, batches: list[list[int]], **options: bool) -> None:
    file = ResumableFile(path, SETTINGS, **options)
    for batch in batches[file.batches :]:
        file.add([{"row": row} for row in batch], {"rows": len(batch), "sum": 0.5})
    file.close()


def test_it_goes_on_behind_the_last_whole_batch(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.jsonl"
    write(path, [[1, 2], [3]])
    with path.open("a") as file:
        file.write('{"row": 4}\n{"ro')  # killed while the third batch was written
    write(path, [[1, 2], [3], [4, 5]])
    assert rows_of(path) == [1, 2, 3, 4, 5]
    file = ResumableFile(path, SETTINGS)
    assert file.batches == 3 and file.totals == {"rows": 5, "sum": 1.5}
    file.close()
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["out.jsonl", "out.jsonl.json"]


def test_overwrite_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write(path, [[1], [2]])
    write(path, [[7]], overwrite=True)
    assert rows_of(path) == [7]
    path.unlink()
    write(path, [[8]])  # the record alone is of no file that is there
    assert rows_of(path) == [8]


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write(path, [[1]])
    with pytest.raises(
        UserError, match=r"other settings: n 1, now 2; nested \{\"path\": \"a\"\}, now null; more null, now"
    ):
        ResumableFile(path, {"command": "test", "n": 2, "more": [1]})
    (tmp_path / "short.jsonl").touch()
    (tmp_path / "short.jsonl.json").write_text((tmp_path / "out.jsonl.json").read_text())
    with pytest.raises(UserError, match="shorter"):
        ResumableFile(tmp_path / "short.jsonl", SETTINGS)
    (tmp_path / "out.jsonl.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        ResumableFile(path, SETTINGS)
    (tmp_path / "mine.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="no output of this command"):
        ResumableFile(tmp_path / "mine.jsonl", SETTINGS)
    with pytest.raises(UserError, match="is what is read"):
        ResumableFile(path, SETTINGS, overwrite=True, sources=[str(path)])
    with pytest.raises(UserError, match=r"end in \.jsonl"):
        ResumableFile(tmp_path / "out.parquet", SETTINGS)
    with pytest.raises(UserError, match="cannot write"):
        ResumableFile(path / "below-a-file.jsonl", SETTINGS)
    assert rows_of(path) == [1]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    file = ResumableFile(tmp_path / "out.jsonl", SETTINGS)
    with pytest.raises(UserError, match="another process"):
        ResumableFile(tmp_path / "out.jsonl", SETTINGS)
    file.close()
    ResumableFile(tmp_path / "out.jsonl", SETTINGS).close()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_with_a_hint_and_their_exit_code(
    number: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end, stoppable(lambda: "stopped: 3 of 4"):
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        except Exception:  # what a library would do
            pytest.fail("an `except Exception` saw the signal")
    assert end.value.code == code and capsys.readouterr().err == "stopped: 3 of 4\n"
    assert signal.getsignal(signal.SIGTERM) is before
