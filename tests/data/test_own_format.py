"""A data format of one's own, from a file outside the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignment import __main__ as program
from alignment.data.formats.registry import choose, parse_row
from alignment.data.readers import load_examples
from alignment.errors import UserError
from alignment.launch.compose import Composer

OWN = """
from __future__ import annotations

from dataclasses import dataclass

from alignment.data.formats.common import RowError, answer, pair, prompt_of

NAME = "duel"
DESCRIPTION = "asked, a, b and won (a or b)"


@dataclass
class Seen:  # a dataclass needs its module to be known
    won: str


def parse(row):
    if "asked" not in row:
        return None
    if row.get("won") not in ("a", "b"):
        raise RowError(f"won is {row.get('won')!r}, neither a nor b")
    answers = answer(row["a"], "a"), answer(row["b"], "b")
    return pair(row, row.keys(), prompt_of(row["asked"]), answers, 1.0 if Seen(row["won"]).won == "a" else 0.0)
"""
ROWS: list[dict[str, Any]] = [
    {"asked": "Why?", "a": "So.", "b": "No.", "won": "a"},
    {"asked": "Why?", "a": "So.", "b": "No.", "won": "c"},
    {"asked": "Who?", "a": "You.", "b": "Me.", "won": "b"},
    {"prompt": "Why?", "chosen": "So.", "rejected": "No."},
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: duel.py, and duels.jsonl with four rows, two of them good."""
    (tmp_path / "duel.py").write_text(OWN)
    write(tmp_path / "duels.jsonl", ROWS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def align(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["align", *arguments])
    try:
        return program.main()
    except SystemExit as end:
        return int(end.code or 0)


def refusal(content: str, row: dict[str, Any] | None = None) -> str:
    """The message for a format file of this content, in the current folder, on one row."""
    Path("odd.py").write_text(content)
    write(Path("row.jsonl"), [row or ROWS[0]])
    with pytest.raises(UserError) as caught:
        load_examples("row.jsonl", format="odd.py")
    assert len(str(caught.value).splitlines()) <= 2
    return str(caught.value)


def test_every_row_must_be_in_it(folder: Path) -> None:
    loaded = load_examples("duels.jsonl", format="duel.py")
    assert loaded.report.formats == {"duel": 2} and loaded.report.rows_read == 4
    assert [(bad.row, bad.reason, bad.kind) for bad in loaded.report.skipped] == [
        (2, "won is 'c', neither a nor b", "other"),
        (4, "not in the format 'duel': it has the fields prompt, chosen, rejected", "unknown format"),
    ]
    first, second = loaded.examples
    assert first.prompt == [{"role": "user", "content": "Why?"}]
    assert [response.text for response in second.responses] == ["You.", "Me."]
    assert [example.preferences[0].p_first for example in (first, second)] == [1.0, 0.0]
    assert (second.meta["source"], second.meta["row"]) == ("duels.jsonl", 3)
    with pytest.raises(UserError, match="duels.jsonl:2: won is 'c'"):
        load_examples("duels.jsonl", format="duel.py", on_bad_row="stop")


def test_several_examples_a_row_and_a_mixture(folder: Path) -> None:
    (folder / "twice.py").write_text(
        OWN.replace("return pair(", "return 2 * [pair(").replace("else 0.0)", "else 0.0)]")
    )
    write(folder / "good.jsonl", ROWS[:1])
    loaded = load_examples({"good.jsonl": 1.0, "duels.jsonl": 1.0}, format="twice.py")
    assert (loaded.report.kept, loaded.report.examples, loaded.report.formats) == (3, 6, {"duel": 3})


def test_a_module_is_named_with_its_dots(folder: Path) -> None:
    (format,) = choose("alignment.data.formats.hh")
    assert format.NAME == "hh"
    row = {"chosen": "\n\nHuman: Hi\n\nAssistant: Yes.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."}
    assert parse_row(row, (format,)) == parse_row(row)


def test_commands(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    assert align(monkeypatch, "data", "check", "duels.jsonl", "--format", "duel.py") == 1
    assert "won is 'c', neither a nor b" in " ".join(capsys.readouterr().out.split())
    assert align(monkeypatch, "data", "convert", "duels.jsonl", "out.jsonl", "--format", "duel.py") == 0
    assert "formats: duel 2" in capsys.readouterr().out
    assert [example.prompt[0]["content"] for example in load_examples("out.jsonl").examples] == ["Why?", "Who?"]
    assert align(monkeypatch, "data", "check", "duels.jsonl", "--format", "dual.py") == 2
    assert capsys.readouterr().err == "error: data format dual.py: no file dual.py\n"


def test_a_run_refuses_it_before_a_model_is_loaded(folder: Path) -> None:
    composer, run = Composer.create(), ["recipe=dpo", "model=tiny", "data.path=duels.jsonl"]
    assert composer.config([*run, "data.format=duel.py"]).data.format == "duel.py"
    for name, message in (
        ("dual.py", "data format dual.py: no file dual.py"),
        ("sharegtp", "unknown data format 'sharegtp': did you mean sharegpt?"),
        ("duel.py:parse", "data format duel.py:parse: a format is a whole file, not one function: leave out :parse"),
        ("no.such_module", "data format no.such_module: cannot be imported: ModuleNotFoundError: No module named 'no'"),
    ):
        with pytest.raises(UserError) as caught:
            composer.config([*run, f"data.format={name}"])
        assert str(caught.value) == message


def test_a_file_that_is_no_format(folder: Path) -> None:
    assert "data format odd.py: NAME is missing" in refusal("")
    assert "data format odd.py: NAME is missing" in refusal(OWN.replace('"duel"', "3"))
    assert "data format odd.py: DESCRIPTION is missing" in refusal('NAME = "odd"')
    assert "data format odd.py: parse is missing" in refusal('NAME = "odd"\nDESCRIPTION = "odd"')
    assert refusal("1 / 0").startswith("data format odd.py: cannot be imported: ZeroDivisionError")
    assert "cannot be imported: SyntaxError" in refusal("def parse(row:")
    assert "cannot be imported: SystemExit" in refusal("import sys\nsys.exit('bye')")


def test_a_mistake_in_parse_is_no_bad_row(folder: Path) -> None:
    head = 'from alignment.data.example import Example, Preference, Response\nNAME = DESCRIPTION = "odd"\n'

    def parsing(body: str) -> str:
        return refusal(f"{head}def parse(row):\n    {body}\n")

    assert parsing("return row['answer']") == "row.jsonl:1: data format odd.py: parse raises KeyError: 'answer'"
    assert "parse gives dict, not an Example" in parsing("return dict(row)")
    assert "parse gives str, not an Example" in parsing("return ['x']")
    assert "an Example with a field of another type" in parsing("return Example('Why?')")
    assert parsing("return None").endswith("it has the fields asked, a, b, won.\nThat format is odd")
    # An Example that its own record does not allow is a bad row, and never reaches a trainer.
    ask = "[{'role': 'user', 'content': 'Why?'}]"
    assert "1 × responses[0].messages is empty" in parsing(f"return Example({ask}, [Response.of('')])")
    assert "1 × preferences[0] names response 1 of 1" in parsing(
        f"return Example({ask}, [Response.of('So.')], [Preference(0, 1)])"
    )
