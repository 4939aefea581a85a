"""`align improve`: records, stops that show in nothing, standard input and output, and what is refused."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from alignment.data.checks import check
from alignment.data.example import Example, Preference, Response
from alignment.data.readers import load_examples
from alignment.rollouts import improve_file as module
from alignment.rollouts.improve_file import Models, answers_of, improve_file
from alignment.rollouts.improver import Improver
from tests.commands import align, refused

ROWS = [
    {"prompt": "Name a fruit.", "response": "A carrot."},
    {"prompt": "Why is the sky blue?", "chosen": "Air scatters short waves most.", "rejected": "It mirrors the sea."},
    {"prompt": "Hi!", "response": "Hello there.", "topic": "greeting"},
    {"prompt": "Who are you?"},
    {"prompt": "What is rain?", "response": "Rain is water. " * 49 + "Water."},
]
SETTINGS: dict[str, Any] = {
    "max_new_tokens": 8,
    "dtype": "float32",
    "temperature": 1.0,
    "rounds": 2,
    "batch_size": 2,
    "max_reference_length": 40,
}
MODELS = Models("tiny", gap="plain_words", policy="tiny")


@pytest.fixture
def answers(tmp_path: Path) -> str:
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(file)


def improver(**changes: Any) -> Improver:
    return Improver("tiny", "plain_words", policy="tiny", **{**SETTINGS, **changes})


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def texts(row: dict) -> list[str]:
    return [response["messages"][0]["content"] for response in row["responses"]]


def test_one_record_an_answer(answers: str, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    said, first = improve_file(answers, out, improver(), MODELS, shown=2)
    rows = lines(out)
    assert [texts(row)[0] for row in rows] == [
        "A carrot.",
        "Air scatters short waves most.",
        "It mirrors the sea.",
        "Hello there.",
        ROWS[4]["response"],
    ]
    assert first == rows[:2] and "5 answers in" in said and "1 prompts without an answer, left out" in said
    for row in rows:
        note = row["meta"]["improved"]
        assert note["original"] == 0 and note["rule"] == "stop" and note["model"] == "tiny"
        made = [each["response"] for each in note["rounds"] if each["response"] is not None]
        assert made == list(range(1, len(row["responses"])))  # every round's answer is there
        assert [row["responses"][at]["source"] for at in made][:1] == ["tiny, round 1"]
        kept = [each["response"] for each in note["rounds"] if each["kept"]]
        assert note["kept"] == (kept[-1] if kept else 0)
        assert all(each["kept"] == (each["gap"] >= each["over_itself"]) for each in note["rounds"])
        assert all(each["tokens"] > 0 for each in note["rounds"])
    assert rows[4]["meta"]["improved"]["rounds"][0]["reference_cut"] and "1 longer than the improver is shown" in said
    assert rows[3]["meta"]["fields"]["topic"] == "greeting"
    report = check(str(out))
    assert report.kept == 5 and not report.wrong


def test_which_answers_and_a_policy_that_answers_first(answers: str, tmp_path: Path) -> None:
    first, last = tmp_path / "first.jsonl", tmp_path / "last.jsonl"
    improve_file(answers, first, improver(), MODELS, of="first", answer_first=True)
    rows = lines(first)
    assert len(rows) == 5 and texts(rows[1])[0].startswith("Air scatters")
    note = rows[3]["meta"]["improved"]
    assert note["answered_first"]["tokens"] > 0 and rows[3]["responses"][0]["source"] == "tiny"
    assert "answered_first" not in rows[0]["meta"]["improved"]
    improve_file(answers, last, improver(), MODELS, of="last")
    assert texts(lines(last)[1])[0] == "It mirrors the sea."
    said, records = improve_file(answers, tmp_path / "worse.jsonl", improver(), MODELS, of="worse", shown=9)
    assert [texts(record)[0] for record in records] == ["It mirrors the sea."]
    assert "4 prompts without an answer that is preferred least, left out" in said


def test_the_better_and_the_worse_answer_are_those_of_the_preferences() -> None:
    said = [Response.of(text) for text in ("one", "two", "three", " ")]
    example = Example([{"role": "user", "content": "Count."}], said)
    assert answers_of(example, "all") == [0, 1, 2] and answers_of(example, "last") == [2]
    assert answers_of(example, "better") == []  # nobody said
    example.preferences = [Preference(1, 0), Preference(1, 2, p_first=0.6), Preference(0, 3, p_first=0.0)]
    assert answers_of(example, "better") == [1]
    assert answers_of(example, "worse") == [0]  # 0 of 1 and 0 of 1, against 0.4; the blank one is none
    example.preferences = [Preference(0, 1, p_first=0.5)]
    assert answers_of(example, "worse") == []


def test_a_record_depends_on_its_own_row_alone(answers: str, tmp_path: Path) -> None:
    whole, one, other = (tmp_path / f"{name}.jsonl" for name in ("whole", "one", "other"))
    improve_file(answers, whole, improver(), MODELS)
    improve_file(answers, other, improver(batch_size=5), MODELS)
    assert other.read_bytes() == whole.read_bytes()
    alone = tmp_path / "answers_2.jsonl"
    alone.write_text(json.dumps(ROWS[2]) + "\n")
    improve_file(str(alone), one, improver(), MODELS)
    assert texts(lines(one)[0]) == texts(lines(whole)[3])


@pytest.mark.parametrize("batches", [0, 2])
def test_where_it_was_stopped_does_not_show(
    batches: int, answers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    said, _ = improve_file(answers, whole, improver(), MODELS)
    original, calls = module._improved, [0]

    def stopped(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] > batches:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_improved", stopped)
        with pytest.raises(SystemExit) as end:
            improve_file(answers, out, improver(), MODELS)
    assert end.value.code == 143 and len(lines(out)) == 2 * batches
    assert f"stopped: {2 * batches} of 5 answers are improved" in capsys.readouterr().err
    again, first = improve_file(answers, out, improver(), MODELS, shown=3)
    assert out.read_bytes() == whole.read_bytes() and first == lines(whole)[:3]
    assert again == said.replace(str(whole), str(out))
    done = improver()
    done.model.asker = None  # type: ignore[assignment]
    assert improve_file(answers, out, done, MODELS)[0] == again  # nothing is left to do, so no model is asked


def test_an_improver_without_words_keeps_the_answers(answers: str, tmp_path: Path) -> None:
    from alignment.rollouts.proposers import Asker
    from tests.rollouts.scripted import ScriptedSampler, tokenizer

    silent = improver()
    silent.model.asker = Asker(ScriptedSampler(lambda text, number: ""), tokenizer())
    said, _ = improve_file(answers, tmp_path / "out.jsonl", silent, MODELS)
    assert "0 changed" in said and "no text 5" in said
    for row in lines(tmp_path / "out.jsonl"):
        (each,) = row["meta"]["improved"]["rounds"]
        assert each["response"] is None and not each["kept"] and len(row["responses"]) == 1
    assert len(load_examples(str(tmp_path / "out.jsonl")).examples) == 5
    narrow = improver(max_prompt_length=1)
    said, _ = improve_file(answers, tmp_path / "narrow.jsonl", narrow, MODELS, answer_first=True)
    assert "prompt too long 6" in said and lines(tmp_path / "narrow.jsonl")[4]["responses"] == []


GIVEN = ["--model", "tiny", "--max-new-tokens", "4", "--rounds", "1", "--dtype", "float32"]


def pipe(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_standard_input_and_output(
    answers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    pipe(monkeypatch, Path(answers).read_text())
    assert align(monkeypatch, "improve", "-", "-", *GIVEN, "--shown", "1") == 0
    out, err = capfdbinary.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 5 and all(row["meta"]["source"] == "stdin" for row in rows)
    assert b"round 1" in err and b"5 answers written" in err
    file = tmp_path / "out.jsonl"
    for _ in range(2):  # the same text again is the same work
        pipe(monkeypatch, Path(answers).read_text())
        assert align(monkeypatch, "improve", "-", file, *GIVEN) == 0
    assert [json.loads(line) for line in file.read_bytes().splitlines()] == rows


def test_the_command_and_what_it_refuses(
    answers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["improve", answers, "out.jsonl", *GIVEN]
    assert align(monkeypatch, *given, "--gap", "plain_words", "--limit", "2", "--shown", "1") == 0
    said = capsys.readouterr().out
    assert "given" in said and "round 1" in said and "gap" in said and "kept" in said
    error = refused(monkeypatch, capsys, *given, "--gap", "plain_words", "--limit", "2", "--temperature", "0.5")
    assert "temperature 0.4, now 0.5" in error and "--overwrite" in error
    assert align(monkeypatch, *given, "--temperature", "0", "--overwrite") == 0
    Path("bare.jsonl").write_text('{"prompt": "Hi!"}\n')
    Path("mine.jsonl").write_text("{}\n")
    Path("mine.yaml").write_text("plain: '{instruction}'\n")
    start = ["improve", answers, "o.jsonl", *GIVEN]
    for wrong, word in (
        (["improve", "nowhere.jsonl", *start[2:]], "nowhere.jsonl"),
        (["improve", "bare.jsonl", *start[2:]], "1 prompts without an answer to improve: --answer-first"),
        (["improve", answers, "mine.jsonl", *GIVEN], "no output of this command"),
        (["improve", answers, answers, *GIVEN, "--overwrite"], "is what is read"),
        (["improve", answers, "o.txt", *GIVEN], ".jsonl"),
        ([*start[:4], "tinny"], "did you mean tiny"),
        ([*start, "--adapter", "."], "there is no LoRA adapter"),
        ([*start, "--gap", "plain_word"], "did you mean plain_words"),
        ([*start, "--gap", "."], "config"),
        ([*start, "--rule", "best"], "needs a gap"),
        ([*start, "--rule", "lats"], "did you mean last"),
        ([*start, "--way", "magic"], "unknown way to improve"),
        ([*start, "--of", "worst"], "unknown choice of answers"),
        ([*start, "--rounds", "0"], "rounds=0"),
        ([*start, "--temperature", "-1"], "temperature=-1"),
        ([*start, "--answer-first"], "needs --policy"),
        ([*start, "--policy", "tinny"], "did you mean tiny"),
        ([*start, "--improvement-template", "mine.yaml"], "needs the key improve"),
        ([*start, "--template", "chatt"], "chatt"),
        ([*start, "--dtype", "int3"], "int3"),
    ):
        assert word in refused(monkeypatch, capsys, *wrong), wrong
    pipe(monkeypatch, "")
    assert "stdin: the file is empty" in refused(monkeypatch, capsys, "improve", "-", *start[2:])
    pipe(monkeypatch, '{"prompt": "Hi!", "respon\n')
    assert "stdin: broken JSON" in refused(monkeypatch, capsys, "improve", "-", *start[2:])
    assert align(monkeypatch, "improve", answers, "o.jsonl") == 2  # no model: the usage
