"""`align sample`: records, resume that shows in nothing, several models, and what is refused."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from alignment.config import ModelConfig
from alignment.data.checks import check
from alignment.data.example import Example, Preference, Response
from alignment.data.readers import load_examples
from alignment.data.templates import encode_prompt
from alignment.errors import UserError
from alignment.models.loading import load_tokenizer
from alignment.rollouts import sample_file as module
from alignment.rollouts.sample_file import Sampling, by_prompt, sample_file
from tests.commands import align, refused

QUESTIONS = ["Name a fruit.", "Why is the sky blue?", "Hi!", "Name a fruit.", "What is rain?", "Who are you?"]
SAMPLING = Sampling(n=2, max_new_tokens=8, seed=1, batch_size=4, dtype="float32")


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": text, "topic": text[:3]}) + "\n" for text in QUESTIONS))
    return str(file)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_one_record_a_prompt(prompts: str, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    said = sample_file(prompts, out, ["tiny"], SAMPLING)
    rows = lines(out)
    assert [row["prompt"][0]["content"] for row in rows] == [*QUESTIONS[:3], *QUESTIONS[4:]]  # the repeated one once
    answers = [response for row in rows for response in row["responses"]]
    assert f"{len(answers)} answers to 5 prompts" in said and all(answer["source"] == "tiny" for answer in answers)
    assert len({answer["messages"][0]["content"] for answer in answers}) > 5  # not one answer n times
    for row in rows:
        (made,) = row["meta"]["sampled"]
        assert len(made["cut"]) == len(row["responses"]) == 2 - made["empty"]
        assert (made["model"], made["temperature"], made["max_new_tokens"]) == ("tiny", 1.0, 8)
        assert row["meta"]["fields"]["topic"] == row["prompt"][0]["content"][:3]
    report = check(str(out))
    assert report.kept == 5 and not report.wrong
    settings = json.loads((tmp_path / "out.jsonl.json").read_text())["settings"]
    assert settings["seed"] == 1 and settings["models"][0][0] == "tiny" and settings["models"][0][1]


def stopped_after(batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM comes while the batch after so many is sampled."""
    original, calls = module.sample, [0]

    def stop(*args, **kwargs):
        calls[0] += 1
        if calls[0] > batches:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    monkeypatch.setattr(module, "sample", stop)


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_where_it_was_stopped_does_not_show(
    batches: int, prompts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sample_file(prompts, tmp_path / "whole.jsonl", ["tiny"], SAMPLING)
    out = tmp_path / "out.jsonl"
    with monkeypatch.context() as patch:
        stopped_after(batches, patch)
        with pytest.raises(SystemExit) as end:
            sample_file(prompts, out, ["tiny"], SAMPLING)
    assert end.value.code == 143
    assert f"stopped: {2 * batches} of 5 prompts" in capsys.readouterr().err and len(lines(out)) == 2 * batches
    said = sample_file(prompts, out, ["tiny"], SAMPLING)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    monkeypatch.setattr(module, "load_beside", None)  # nothing is left to do, so none is loaded
    assert sample_file(prompts, out, ["tiny"], SAMPLING) == said


def test_several_models_and_kept_answers_share_a_group(prompts: str, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    sample_file(prompts, out, ["tiny", "tiny"], SAMPLING, limit=2)
    rows = lines(out)
    assert len(rows) == 2
    for row in rows:
        own = [answer["messages"][0]["content"] for answer in row["responses"]]
        first, second = row["meta"]["sampled"]
        assert first["responses"] + second["responses"] == list(range(len(own)))
        assert [own[at] for at in first["responses"]] != [own[at] for at in second["responses"]]
    more = tmp_path / "more.jsonl"
    sample_file(str(out), more, ["tiny"], SAMPLING, keep=True)
    for old, new in zip(rows, lines(more), strict=True):
        assert new["responses"][: len(old["responses"])] == old["responses"]
        assert len(new["meta"]["sampled"]) == 3 and new["meta"]["sampled"][:2] == old["meta"]["sampled"]
    bare = tmp_path / "bare.jsonl"
    sample_file(str(out), bare, ["tiny"], SAMPLING)
    assert all(len(row["responses"]) <= 2 and len(row["meta"]["sampled"]) == 1 for row in lines(bare))


def test_answers_of_one_prompt_are_gathered_with_their_preferences() -> None:
    prompt = [{"role": "user", "content": "Why?"}]
    a, b, c = (Response.of(text) for text in "abc")
    rows = [Example(prompt, [a, b], [Preference(0, 1)]), Example(prompt, [c, a], [Preference(1, 0, 0.7)])]
    (kept,) = by_prompt(rows, keep=True)
    assert [answer.text for answer in kept.responses] == ["a", "b", "c", "a"]
    assert kept.preferences == [Preference(0, 1), Preference(3, 2, 0.7)]
    (bare,) = by_prompt(rows, keep=False)
    assert bare.responses == [] and bare.preferences == [] and len(rows[0].responses) == 2


def test_an_answer_without_text_is_left_out_and_counted(
    prompts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = module.sample

    def emptied(*args, **kwargs):
        found = original(*args, **kwargs)
        return [type(found[0])((), "", True), *found[1:]]

    monkeypatch.setattr(module, "sample", emptied)
    out = tmp_path / "out.jsonl"
    said = sample_file(prompts, out, ["tiny"], SAMPLING)
    empty = sum(row["meta"]["sampled"][0]["empty"] for row in lines(out))
    assert empty >= 3 and f"{empty} without text" in said
    loaded = load_examples(str(out))
    assert not loaded.report.skipped and len(loaded.examples) == 5


def test_long_prompts_are_left_out(prompts: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(ModelConfig(path="tiny"))
    own = sorted(len(encode_prompt(tokenizer, [{"role": "user", "content": text}])) for text in set(QUESTIONS))
    short = Sampling(n=1, max_new_tokens=2, max_prompt_length=own[2], dtype="float32")
    said = sample_file(prompts, tmp_path / "out.jsonl", ["tiny"], short)
    left = len(lines(tmp_path / "out.jsonl"))
    assert 3 <= left < 5 and f"{5 - left} prompts over max_prompt_length" in said
    with pytest.raises(UserError, match="all 5 prompts"):
        sample_file(prompts, tmp_path / "none.jsonl", ["tiny"], Sampling(max_prompt_length=1))


def test_the_command_and_what_it_refuses(
    prompts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["sample", prompts, "out.jsonl", "--model", "tiny", "-n", "1", "--max-new-tokens", "2", "--limit", "2"]
    assert align(monkeypatch, *given) == 0
    assert "answers to 2 prompts" in capsys.readouterr().out and len(lines(Path("out.jsonl"))) == 2
    error = refused(monkeypatch, capsys, *given, "--temperature", "0.5", "--seed", "4")
    assert "temperature 1.0, now 0.5" in error and "--overwrite" in error
    assert align(monkeypatch, *given, "--temperature", "0", "--overwrite") == 0
    Path("mine.jsonl").write_text("{}\n")
    for wrong, word in (
        (["sample", "nowhere.jsonl", "o.jsonl", "--model", "tiny"], "nowhere.jsonl"),
        (["sample", prompts, "o.jsonl", "--model", "tinny"], "did you mean tiny"),
        (["sample", prompts, "mine.jsonl", "--model", "tiny"], "no output of this command"),
        (["sample", prompts, prompts, "--model", "tiny", "--overwrite"], "is what is read"),
        (["sample", prompts, "o.jsonl", "--model", "tiny", "-n", "0"], "n=0"),
        (["sample", prompts, "o.jsonl", "--model", "tiny", "--temperature", "0"], "same answer"),
        (["sample", prompts, "o.jsonl", "--model", "tiny", "--dtype", "int3"], "int3"),
        (["sample", prompts, "o.txt", "--model", "tiny"], ".jsonl"),
        (["sample", prompts, "mine.jsonl/o.jsonl", "--model", "tiny"], "cannot write"),
    ):
        assert word in refused(monkeypatch, capsys, *wrong)
    assert align(monkeypatch, "sample", prompts, "o.jsonl") == 2  # no model: the usage
