"""`align eval` from end to end: stored and sampled answers, what is kept, what goes on, what is refused and counted."""

from __future__ import annotations

import csv
import json
import math
import os
import random
import signal
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from alignment.errors import UserError
from alignment.evaluation.metrics.multiple import holm
from alignment.evaluation.models import run as module
from alignment.evaluation.models import sampled, verdicts, weights
from alignment.evaluation.models.outcome import Evaluation
from alignment.evaluation.models.run import Asking, evaluate
from alignment.evaluation.models.tables import render
from alignment.evaluation.models.tasks import task_cells
from alignment.evaluation.models.weights import Weights
from alignment.resumable import OneProcess
from alignment.rollouts.sample_file import Sampling
from tests.commands import align, refused
from tests.evaluation.models.made import Longer, write_rows
from tests.feedback.fault_server import Answer, FaultServer
from tests.feedback.scripted import text_in
from tests.launching import launch

TEXT = "the rain falls on old roofs while small birds sing of warm days and long roads"
SHORT = Sampling(n=1, max_new_tokens=6, dtype="float32", batch_size=2)
QUESTIONS = [{"prompt": text} for text in ("Name a fruit.", "Why is the sky blue?", "Hi!", "What is rain?", "Who?")]


def stored(folder: Path, **words: int) -> list[str]:
    """A file of 24 answers of about so many words for each name."""
    found = []
    for name, length in words.items():
        rng = random.Random(name)
        rows = [
            {
                "prompt": f"Question {at}?",
                "completion": " ".join(rng.choices(TEXT.split(), k=length + rng.randint(-2, 2))),
            }
            for at in range(24)
        ]
        found.append(write_rows(folder / f"{name}.jsonl", rows))
    return found


def cells(found: Evaluation) -> list[dict[str, Any]]:
    return [cell.to_dict() for cell in found.cells]


@pytest.fixture(autouse=True)
def no_picture(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture takes longer than all else."""
    if "files" not in request.node.name:
        monkeypatch.setattr(module.heat_map, "draw", lambda *given: bytes(24))


def outcome(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "eval.json").read_text())


def test_stored_answers_scored_compared_and_ranked(tmp_path: Path) -> None:
    files = stored(tmp_path, short=6, middle=9, long=20)
    asking = Asking(scores=["plain_words", "length"], judges=[Longer(), "length"], baseline="middle")
    found = evaluate(files, files[0], tmp_path / "out", asking)
    assert [one.of.name for one in found.models] == ["short", "middle", "long"] and found.baseline == "middle"
    mean = found.cell("mean", "long", "length")
    lengths = [len(row["completion"].split()) for row in map(json.loads, Path(files[2]).read_text().splitlines())]
    middle = [len(row["completion"].split()) for row in map(json.loads, Path(files[1]).read_text().splitlines())]
    assert mean.value == pytest.approx(sum(lengths) / 24) == found.cell("words", "long").value
    assert mean.difference == pytest.approx((sum(lengths) - sum(middle)) / 24)
    assert mean.difference_low < mean.difference < mean.difference_high and mean.n == 24
    wins = found.cell("win rate", "long", "longer")
    assert wins.value == 1 and wins.counts["wins"] == 24 and 0.8 < wins.low < wins.high == 1
    assert [each.model for each in found.standings["longer"]] == ["long", "middle", "short"]
    names, matrix = found.matrix("longer")
    assert names == ["short", "middle", "long"] and math.isnan(matrix[0, 0]) and matrix[2, 1] == 1
    # Every p-value of scores and judges is in one family, 2 of each of 2 models; what is said of answers in another.
    tested = [cell for cell in found.cells if cell.p == cell.p]
    opinions, measured = ([cell for cell in tested if (cell.section == "answers") == of] for of in (False, True))
    assert len(opinions) == 8 and all(cell.model != "middle" for cell in tested)
    for family in (opinions, measured):
        assert [cell.p_adjusted for cell in family] == holm([cell.p for cell in family]).tolist()
    words = found.cell("words", "long")
    assert words.difference == mean.difference and words.p_adjusted < 0.05
    table = (tmp_path / "out" / "table.md").read_text()
    assert f"| long | {words.value:.1f}\\* [" in table and "corrected by Holm for the 8 comparisons of answers" in table
    assert not [cell for cell in found.cells if cell.metric in ("tokens", "cut", "kl", "entropy")]  # stored: no meaning


def test_the_files_hold_the_same_numbers(tmp_path: Path) -> None:
    files = stored(tmp_path, short=6, middle=9, long=20)
    found = evaluate(files, files[0], tmp_path / "out", Asking(scores=["length"], judges=[Longer()]))
    kept = outcome(tmp_path / "out")
    assert kept["baseline"] == "short" and kept["prompts"]["prompts"] == 24
    rows = list(csv.DictReader((tmp_path / "out" / "eval.csv").open()))
    assert len(rows) == len(kept["cells"]) == len(found.cells)
    for row, cell, own in zip(rows, kept["cells"], found.cells, strict=True):
        assert row["metric"] == cell["metric"] == own.metric and float(row["value"]) == cell["value"] == own.value
        assert row["p"] == ("" if cell["p"] is None else str(cell["p"]))
    text = (tmp_path / "out" / "table.md").read_text()
    assert "## Win rate against short, by longer" in text and "| long | 100.0 % [" in text
    assert (tmp_path / "out" / "pairs-longer.png").read_bytes().startswith(b"\x89PNG")
    assert kept["judges"]["longer"]["matrix"][0][0] is None and len(kept["judges"]["longer"]["ranking"]) == 3
    assert not (tmp_path / "out" / ".eval.lock").exists()


def test_pairs_with_the_baseline_alone(tmp_path: Path) -> None:
    files, judge = stored(tmp_path, short=6, middle=9, long=20), Longer()
    found = evaluate(files, files[0], tmp_path / "out", Asking(judges=[judge], pairs="baseline"))
    assert len(judge.asked) == 2 * 2 * 24
    assert [(duel.first, duel.second) for duel in found.duels["longer"]] == [("middle", "short"), ("long", "short")]
    assert not found.standings and not list((tmp_path / "out").glob("*.png"))  # one model has met all others
    whole = evaluate(files, files[0], tmp_path / "all", Asking(judges=[Longer()]))
    for metric in ("win rate", "length-controlled"):
        mine, others = (one.cell(metric, "long", "longer").to_dict() for one in (found, whole))
        assert mine | {"p_adjusted": None} == others | {"p_adjusted": None}  # of a smaller family


def test_a_judge_down_half_way_and_the_same_command_again(tmp_path: Path) -> None:
    files = stored(tmp_path, short=6, long=20)
    asking = Asking(scores=["length"], judges=[Longer(rows=40)])
    part = evaluate(files, files[0], tmp_path / "out", asking)
    assert "ConnectionError: no answer from the server" in part.failures["longer"]
    assert any("longer FAILED" in note and "The same command asks for the rest" in note for note in part.notes)
    wins = part.cell("win rate", "long", "longer")
    assert wins.counts["no verdict"] == 24 - 16 and wins.n == 16  # one batch of 32 rows, two orders
    assert part.cell("mean", "long", "length").n == 24  # the others are asked all the same
    again, up = Longer(), tmp_path / "out"
    found = evaluate(files, files[0], up, Asking(scores=["length"], judges=[again]))
    whole = evaluate(files, files[0], tmp_path / "whole", Asking(scores=["length"], judges=[Longer()]))
    assert len(again.asked) == 48 - 32 and cells(found) == cells(whole) and not found.failures
    assert (up / "table.md").read_text() == (tmp_path / "whole" / "table.md").read_text()


def test_answers_are_sampled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = write_rows(tmp_path / "prompts.jsonl", QUESTIONS)
    other = write_rows(tmp_path / "other.jsonl", [{**row, "completion": "A short one."} for row in QUESTIONS])
    first = evaluate(["tiny", other], asked, tmp_path / "out", Asking(scores=["length"], reference="tiny"), SHORT)
    said = first.models[0]
    assert all(len(row) == 1 and row[0].ids and 1 <= len(row[0].ids) <= 6 for row in said.said)
    assert first.cell("kl", "tiny").value == 0 and first.cell("entropy", "tiny").value > 0
    assert first.cell("tokens", "tiny").value == sum(len(row[0].ids or ()) for row in said.said) / 5
    with pytest.raises(KeyError):
        first.cell("tokens", "other")
    for gone in (sampled, weights):
        monkeypatch.setattr(gone, "sample" if gone is sampled else "load_beside", None)
    asking = Asking(scores=["plain_words"], judges=["length"], baseline="other", reference="tiny")
    second = evaluate(["again=tiny", other], asked, tmp_path / "out", asking, SHORT)  # another name, other scores
    assert second.models[0].said == said.said and second.cell("win rate", "again", "length").n == 5
    with pytest.raises(TypeError):  # another seed is another question
        evaluate(["tiny"], asked, tmp_path / "out", None, Sampling(n=1, max_new_tokens=6, seed=1, dtype="float32"))


def test_the_file_of_answers_is_one_of_records(tmp_path: Path) -> None:
    asked = write_rows(tmp_path / "prompts.jsonl", QUESTIONS)
    found = evaluate(["tiny"], asked, tmp_path / "out", None, SHORT)
    file = found.models[0].file
    again = evaluate([f"tiny={file}"], asked, tmp_path / "again")
    texts = [[said.text for said in row if said.text] for row in found.models[0].said]
    assert [[said.text for said in row] for row in again.models[0].said] == texts


@pytest.mark.parametrize("where", ["sampling", "judging"])
def test_where_it_was_stopped_does_not_show(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = write_rows(tmp_path / "prompts.jsonl", QUESTIONS)
    rows = [[{**row, "completion": text} for row in QUESTIONS] for text in ("A short one.", "Another, longer one.")]
    one, other = (write_rows(tmp_path / f"{name}.jsonl", own) for name, own in zip("ab", rows, strict=True))
    monkeypatch.setattr(verdicts, "BATCH_SIZE", 2)

    def run(out: Path) -> Any:
        models = ["tiny" if where == "sampling" else one, other]
        return evaluate(models, asked, out, Asking(judges=[Longer()]), SHORT)

    whole = run(tmp_path / "whole")
    place, name = (sampled, "sample") if where == "sampling" else (verdicts.VerdictFile, "_add")
    original, calls = getattr(place, name), [0]

    def stop(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, stop)
        with pytest.raises(SystemExit) as end:
            run(tmp_path / "out")
    assert end.value.code == 143 and "the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "out" / "eval.json").exists()
    assert cells(run(tmp_path / "out")) == cells(whole)
    for kind in ("answers", "likelihoods", "verdicts"):
        for file in (tmp_path / "whole" / kind).glob("*.jsonl"):
            assert (tmp_path / "out" / kind / file.name).read_bytes() == file.read_bytes()


def test_several_answers_show_diversity_over_equal_sets(tmp_path: Path) -> None:
    rows = [{"prompt": "a"}, {"prompt": "b"}]
    own = {"a": ["one two three", "one two three", "x"], "b": ["four five six", "seven eight nine", "y"]}
    files = [
        write_rows(tmp_path / "twice.jsonl", [{"prompt": p, "completion": text} for p in "ab" for text in own[p]]),
        write_rows(tmp_path / "other.jsonl", [{"prompt": p, "completion": text} for p in "ab" for text in own[p][:2]]),
    ]
    found = evaluate(files, write_rows(tmp_path / "p.jsonl", rows), tmp_path / "out", None, Sampling(n=3))
    same = [found.cell("distinct-1, per input", name) for name in ("twice", "other")]
    assert same[0].value == same[1].value == (0.5 + 1.0) / 2  # two answers of each, though one model gave three
    assert found.cell("distinct-1, across inputs", "twice").counts["answers"] == 2


def test_prompts_too_long_for_a_model_have_no_answer(tmp_path: Path) -> None:
    asked = write_rows(tmp_path / "prompts.jsonl", QUESTIONS)
    ids = sorted(
        len(Weights("tiny", "float32", "chat").encode([{"role": "user", "content": q["prompt"]}])) for q in QUESTIONS
    )
    sampling = Sampling(n=1, max_new_tokens=2, max_prompt_length=ids[-2], dtype="float32")
    found = evaluate(["tiny"], asked, tmp_path / "out", None, sampling)
    left = sum(length > ids[-2] for length in ids)
    assert found.models[0].missing == left == 1 and any("over" in note for note in found.notes)
    assert "| answered |" in (tmp_path / "out" / "table.md").read_text()


class Harness(types.ModuleType):
    """What is used of lm-eval, as its documentation describes it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__("lm_eval")
        self.calls: list[dict[str, Any]] = []
        models = types.ModuleType("lm_eval.models.huggingface")
        models.HFLM = types.SimpleNamespace  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "lm_eval", self)
        monkeypatch.setitem(sys.modules, models.__name__, models)

    def simple_evaluate(self, **given: Any) -> dict[str, Any] | None:
        self.calls.append(given)
        (task,) = given["tasks"]
        if task == "nowhere":
            raise KeyError("nowhere")
        if os.environ.get("LOCAL_RANK", "0") != "0":
            return None
        scores = {"acc,none": 0.25, "acc_stderr,none": 0.01, "acc_norm,none": 0.3, "acc_norm_stderr,none": "N/A"}
        parts = [task] if task != "group" else ["group", "part"]
        return {"results": {each: {"alias": each, "sample_len": 100, **scores} for each in parts}}


def test_benchmarks_are_the_harness_s_affair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = write_rows(tmp_path / "prompts.jsonl", QUESTIONS[:2])
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UserError, match=r"--tasks needs a package that is not installed.*pip install lm-eval"):
        evaluate(["tiny"], asked, tmp_path / "out", Asking(tasks=["arc_easy"]), SHORT)
    harness = Harness(monkeypatch)
    for _ in range(2):
        asking = Asking(tasks=["arc_easy", "group"], task_limit=10)
        found = evaluate(["tiny"], asked, tmp_path / "out", asking, SHORT)
    first, second = harness.calls  # each once
    assert (first["tasks"], second["tasks"]) == (["arc_easy"], ["group"]) and first["limit"] == 10
    assert first["model"].pretrained.config.hidden_size == 192 and first["model"].tokenizer.vocab_size
    cell = found.cell("acc", "tiny", "part")
    assert (cell.value, cell.counts["se"]) == (0.25, 0.01) and cell.low == pytest.approx(0.25 - 0.0196)
    assert math.isnan(found.cell("acc_norm", "tiny", "arc_easy").low)
    assert not [cell for cell in found.cells if cell.metric == "sample_len"]
    text = (tmp_path / "out" / "table.md").read_text()
    assert "| model | arc\\_easy acc | arc\\_easy acc\\_norm |" in text and "| 0.250 ± 0.010 | 0.300 |" in text
    with pytest.raises(UserError, match="--tasks nowhere: lm-eval refuses: 'nowhere'"):
        evaluate(["tiny"], asked, tmp_path / "out", Asking(tasks=["arc_easy", "nowhere"]), SHORT)


class OneOfTwo(OneProcess):
    """One of two processes; `others` is what the other one has found, batch by batch."""

    size = 2

    def __init__(self, rank: int, others: list[list[Any]]) -> None:
        self.rank, self.others = rank, iter(others)

    def gathered(self, mine: list[Any]) -> list[Any]:
        theirs = next(self.others)
        return theirs + mine if self.rank else mine + theirs


def test_benchmarks_are_shared_out_to_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: Any = types.SimpleNamespace(spec="m", key=["m"], model="a model", tokenizer="its tokenizer")
    found, said = [], {task: (task, {task: {"acc,none": 0.5}}, "") for task in ("a", "b", "c")}
    for rank, own, others in ((0, ["a", "c"], [[said["b"]], []]), (1, ["b"], [[said["a"]], [said["c"]]])):
        harness = Harness(monkeypatch)
        monkeypatch.setenv("LOCAL_RANK", str(rank))  # as the launcher says
        folder = tmp_path / str(rank)
        found.append(task_cells("m", loaded, ["a", "b", "c"], folder, None, OneOfTwo(rank, others)))
        assert [call["tasks"] for call in harness.calls] == [[task] for task in own]
        assert os.environ["LOCAL_RANK"] == str(rank)
        assert len(list(folder.glob("tasks/*.json"))) == (0 if rank else 3)
        other: list[Any]
        for other in ([("nowhere", {}, "why")], [said["b"]]):  # both processes end, whichever it was
            two = OneOfTwo(rank, [other])
            with pytest.raises(UserError, match="--tasks nowhere: lm-eval refuses"):
                task_cells("m", loaded, ["nowhere", "d"][:: -1 if rank else 1], tmp_path / "o", None, two)
    values = [{(cell.of, cell.metric): cell.value for cell in cells} for cells in found]
    assert values[0][("a", "acc")] == 0.25 and values[0][("b", "acc")] == 0.5 and values[1][("b", "acc_norm")] == 0.3


def test_the_command_and_what_it_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    short, long = (Path(file).name for file in stored(tmp_path, short=6, long=20))
    given = ["eval", short, f"b={long}", "--prompts", short, "--out", "out"]
    assert align(monkeypatch, *given, "--score", "length", "--judge", "words=plain_words", "--limit", "10") == 0
    said = capsys.readouterr().out
    for part in ("Win rate against short, by words", "Score: length; baseline: short", "10 prompts.", "written to out"):
        assert part in said
    write_rows(tmp_path / "elsewhere.jsonl", [{"prompt": "other", "completion": "x"}])
    (tmp_path / "file").write_text("x")
    down = tmp_path / "down.py"
    down.write_text("def score(prompt, answer, context):\n    raise ConnectionError('gone')\n")
    assert align(monkeypatch, *given, "--score", "down.py:score") == 1  # the table is there, and is not whole
    assert "score FAILED" in capsys.readouterr().out
    for wrong, word in (
        (["eval", "elsewhere.jsonl", "--prompts", short, "--out", "o"], "answers none of the 24 prompts"),
        (["eval", "nowhere.jsonl", "--prompts", short, "--out", "o"], "no such file of answers"),
        (["eval", short, "--prompts", "nowhere.jsonl", "--out", "o"], "nowhere.jsonl"),
        (["eval", "tinny", "--prompts", short, "--out", "o"], "did you mean tiny"),
        ([*given, "--score", "lenght"], "did you mean length"),
        ([*given, "--baseline", "shrot"], "did you mean short"),
        ([*given, "--pairs", "some"], "unknown choice of pairs 'some'"),
        ([*given, "--reference", "b"], "--reference b is a file of answers"),
        ([*given, "--held-out", "nowhere.txt"], "--held-out nowhere.txt"),
        ([*given, "--temperature", "-1"], "temperature=-1"),
        (["eval", short, "--prompts", short, "--out", "o", "--judge", "length"], "there is one"),
        (["eval", short, "--prompts", short, "--out", "file"], "cannot write file"),
    ):
        assert word in refused(monkeypatch, capsys, *wrong)


def test_a_served_judge_that_goes_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "cache"))
    files = stored(tmp_path, short=6, long=20)
    down = [True]

    def says(number: int, body: dict[str, Any]) -> Answer:
        first, second = (len(text_in(body["messages"], slot)) for slot in ("first", "second"))
        status = 401 if down[0] and number >= 20 else 200
        return Answer(f"LINE {'A' if first > second else 'B'}", status=status)

    server = FaultServer(says)
    try:
        yaml = tmp_path / "served.yaml"
        yaml.write_text(f"name: judge_served\nbase_url: {server.url}\nmodel: m\nconcurrency: 1\ncache: false\n")
        asking = Asking(judges=[str(yaml)])
        monkeypatch.setattr(verdicts, "BATCH_SIZE", 8)
        part = evaluate(files, files[0], tmp_path / "out", asking)
        assert "asks for a key" in part.failures["served"]
        counts = part.cell("win rate", "long", "served").counts
        assert (counts["wins"], counts["no verdict"], counts["orders disagree"]) == (8, 16, 0)
        down[0] = False
        found = evaluate(files, files[0], tmp_path / "out", asking)
    finally:
        server.close()
    assert found.cell("win rate", "long", "served").counts["wins"] == 24 and not found.failures
    # In each order once: two whole batches, one of which the fifth request was refused, and what was left.
    assert len(server.asked) == 16 + 5 + (48 - 16)


def test_hostile_text_stays_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = "</script><img src=x onerror=alert(1)>[bold]| \x1b[31m\u202e"
    rows = [{"prompt": f"{at} {bad}", "completion": f"{bad} {at}"} for at in range(3)]
    file = write_rows(tmp_path / "a.jsonl", rows)
    found = evaluate([f"<b>|x={file}", f"y={file}"], file, tmp_path / "out", Asking(judges=[Longer()]))
    render(found.tables, found.notes, Console())
    page, table, said = (
        (tmp_path / "out/report.html").read_text(),
        (tmp_path / "out/table.md").read_text(),
        capsys.readouterr().out,
    )
    assert "<img src=x" not in page and "<b>|x" not in page and "\x1b" not in page + table + said
    assert "&lt;img src=x" in page and "\\<b\\>\\|x" in table and "<b>|x" in said
    assert found.cell("win rate", "y", "longer").counts["ties"] == 3  # the same texts


@pytest.mark.slow
def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    asked = write_rows(tmp_path / "prompts.jsonl", QUESTIONS)
    (tmp_path / "text.txt").write_text("Rain falls on roofs. " * 120)
    given = ["-m", "alignment", "eval", "tiny", "b=tiny", "--prompts", asked, "--max-new-tokens", "6", "-n", "2"]
    given += ["--dtype", "float32", "--batch-size", "2", "--score", "plain_words", "--judge", "length"]
    given += ["--reference", "b", "--held-out", str(tmp_path / "text.txt")]
    for processes in (1, 2):
        done = launch([*given, "--out", str(tmp_path / f"out{processes}")], processes)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("written to") == 1
    for name in ("eval.json", "eval.csv", "table.md"):
        assert (tmp_path / "out1" / name).read_text() == (tmp_path / "out2" / name).read_text()
    wrong = launch([*given, "--out", str(tmp_path / "o"), "--baseline", "c"], 2)
    assert wrong.returncode != 0 and wrong.stderr.count("error: unknown --baseline") == 1


def test_a_folder_is_written_by_one_at_a_time(tmp_path: Path) -> None:
    (short,) = stored(tmp_path, short=6)
    with module._locked(tmp_path / "out", module.OneProcess()), pytest.raises(UserError, match="another evaluation"):
        evaluate([short], short, tmp_path / "out")
