"""`align label`: what each kind of feedback leaves in a record, what it leaves out, and what is refused."""

from __future__ import annotations

import json
import linecache
import math
from collections import Counter
from pathlib import Path

import pytest

from alignment.data.checks import check
from alignment.data.example import Example, Judgment, Preference, Response
from alignment.data.readers import load_examples
from alignment.data.views import pairs, unpaired
from alignment.errors import UserError
from alignment.feedback import label as module
from alignment.feedback.label import Labeller, Labelling, choose_way, context_of, describe, label_file
from tests.commands import align, refused

PROMPT = [{"role": "user", "content": "Why?"}]


class Length:
    """A reward: characters; "?" is no verdict. Its score is the sum of two parts."""

    def score(self, prompts, completions, context=None):
        return [math.nan if text == "?" else float(len(text)) for text in completions]

    def parts(self, prompts, completions, context=None):
        halves = [math.nan if text == "?" else len(text) / 2 for text in completions]
        return {"half": halves, "other half": halves}


class Longer:
    """A judge that is surer the greater the difference, and counts what it cannot judge."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def prefer(self, prompts, first, second, context=None):
        silent = ["?" in (a, b) for a, b in zip(first, second, strict=True)]
        self.counts["unparsable"] += sum(silent)
        return [
            math.nan if none else 0.5 + (len(a) - len(b)) / 10 for none, a, b in zip(silent, first, second, strict=True)
        ]


class Critic:
    def review(self, prompts, completions, context=None):
        return [
            Judgment()
            if text == "?"
            else Judgment(f"{len(text)} letters", len(text) > 1, "me" if len(text) == 1 else None)
            for text in completions
        ]


def example(*texts: str, prompt: str = "Why?", scores: tuple = (), meta: dict | None = None) -> Example:
    answers = [Response.of(text, source="m") for text in texts]
    for answer, score in zip(answers, scores, strict=False):
        answer.score = score
    return Example([{"role": "user", "content": prompt}], answers, meta={"id": prompt, **(meta or {})})


def labelled(feedback, way: str, *examples: Example, **settings) -> tuple[list[dict], Counter[str]]:
    return Labeller(feedback, "rule", way, Labelling(**settings)).label(list(examples))


def compared(row: dict) -> list[tuple[int, int, float]]:
    return [(given["first"], given["second"], pytest.approx(given["p_first"])) for given in row["preferences"]]


def test_a_reward_gives_scores() -> None:
    (row, _), totals = labelled(Length(), "score", example("aaa", "?", "a"), example("bb", "cc"))
    assert [answer["score"] for answer in row["responses"]] == [3.0, None, 1.0]
    assert totals["labelled"] == 4 and totals["no verdict"] == 1 and totals["ties"] == 1 and totals["sum"] == 8
    shown = dict(describe("score", totals))
    assert shown["mean score"] == "2.000" and shown["  mean half"] == "1.000" and shown["no verdict"] == "1"
    assert row["responses"][0]["source"] == "m"


def test_a_judge_gives_soft_preferences_and_no_verdict_is_none() -> None:
    judge = Longer()
    (row,), totals = labelled(judge, "prefer", example("aaa", "?", "a", "b"))
    assert compared(row) == [(0, 2, 0.7), (0, 3, 0.7), (2, 3, 0.5)]
    assert totals["no verdict"] == totals["count unparsable"] == 3 and totals["ties"] == 1 and totals["labelled"] == 3
    assert dict(describe("prefer", totals))["mean |P(first) - 1/2|"] == f"{0.4 / 3:.3f}"
    _, later = labelled(judge, "prefer", example("aaa", "a"))
    assert later["count unparsable"] == 0  # what is new, not the sum since the judge was made


def test_a_critic_gives_judgments() -> None:
    (row,), totals = labelled(Critic(), "review", example("aaa", "?", "a"))
    assert [answer["judgments"] for answer in row["responses"]] == [
        [{"text": "3 letters", "satisfactory": True, "annotator": "rule"}],
        [],
        [{"text": "1 letters", "satisfactory": False, "annotator": "me"}],
    ]
    assert [answer["desirable"] for answer in row["responses"]] == [True, None, False]
    assert totals["no verdict"] == 1 and dict(describe("review", totals))["satisfactory"] == "50.0%"


def test_one_kind_as_another() -> None:
    (row,), _ = labelled(Length(), "prefer", example("aaa", "a"))
    assert compared(row) == [(0, 1, 1 / (1 + math.exp(-2)))]
    (row,), _ = labelled(Longer(), "score", example("aaa", "a"))
    assert [answer["score"] for answer in row["responses"]] == pytest.approx([0.7, 0.3])
    assert choose_way(Length(), None) == "score" and choose_way(Longer(), None) == "prefer"
    with pytest.raises(UserError, match="writes no judgments"):
        choose_way(Length(), "review")

    class Both(Length, Longer):
        pass

    with pytest.raises(UserError, match="score and prefer: say which with --as"):
        choose_way(Both(), None)
    assert choose_way(Both(), "prefer") == "prefer"


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("all", [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]),
        ("adjacent", [(0, 1), (1, 2), (2, 3)]),
        ("best_worst", [(1, 2)]),
        ("9", [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]),
    ],
)
def test_which_pairs(way: str, expected: list[tuple[int, int]]) -> None:
    labeller = Labeller(Longer(), "rule", "prefer", Labelling(pairs=way))
    assert labeller.pairs_of(example("a", "bb", "ccc", "d", scores=(2, 1, 3, 2)), Counter()) == expected


def test_best_and_worst_by_a_rewards_own_scores() -> None:
    (row,), _ = labelled(Length(), "prefer", example("aa", "?", "aaaa", "a", scores=(9, 9, 1, 2)), pairs="best_worst")
    assert compared(row) == [(2, 3, 1 / (1 + math.exp(-3)))]
    assert all(answer["score"] is None for answer in row["responses"])


def test_random_pairs_by_seed_and_prompt() -> None:
    def chosen(seed: int, prompt: str) -> list[tuple[int, int]]:
        labeller = Labeller(Longer(), "rule", "prefer", Labelling(pairs="2", seed=seed))
        return labeller.pairs_of(example(*"abcdef", prompt=prompt), Counter())

    assert chosen(0, "x") == chosen(0, "x") and len(set(chosen(0, "x"))) == 2
    assert len({tuple(chosen(seed, prompt)) for seed in range(4) for prompt in "xyz"}) > 6


def test_pairs_that_say_nothing_are_not_asked() -> None:
    totals: Counter[str] = Counter()
    labeller = Labeller(Longer(), "rule", "prefer", Labelling())
    assert labeller.pairs_of(example("a", "a", "b"), totals) == [(0, 2)]
    assert totals["pairs of the same text"] == 1 and totals["pairs repeated"] == 1
    worst = Labeller(Longer(), "rule", "prefer", Labelling(pairs="best_worst"))
    assert worst.pairs_of(example("a", "b", scores=(1, 1)), totals) == []
    assert totals["prompts without a best and a worst score"] == 1


def test_old_labels_go_unless_kept() -> None:
    def old() -> Example:
        made = example("aaa", "a", scores=(9, 8))
        made.preferences = [Preference(1, 0)]
        made.responses[0].judgments = [Judgment("good", True)]
        return made

    (row,), _ = labelled(Longer(), "prefer", old())
    assert compared(row) == [(0, 1, 0.7)] and row["responses"][0]["score"] is None
    assert row["responses"][0]["judgments"] == []
    (row,), _ = labelled(Longer(), "prefer", old(), keep=True)
    assert compared(row) == [(1, 0, 1.0), (0, 1, 0.7)] and row["responses"][0]["score"] == 9
    (row,), _ = labelled(Length(), "score", old(), keep=True)
    assert row["responses"][0]["score"] == 3.0 and row["responses"][0]["judgments"]


def test_context_holds_the_fields_and_the_reference() -> None:
    made = example("a", meta={"fields": {"answer": "42", "topic": "sums"}, "source": "x.jsonl", "row": 1})
    assert context_of(made) == {"answer": "42", "topic": "sums"}
    assert context_of(made, "answer")["reference"] == "42"
    assert "reference" not in context_of(made, "nothing")


def test_a_probability_out_of_range_is_refused() -> None:
    class Wrong:
        def prefer(self, prompts, first, second, context=None):
            return [2.0] * len(first)

    with pytest.raises(UserError, match=r"gave P\(first better\) = 2.0"):
        labelled(Wrong(), "prefer", example("a", "b"))


RULE = """
def plain(prompt, text, context):
    return float(len(text)) if text != "?" else float("nan")

def close(prompt, text, context):
    return -abs(len(text) - float(context["reference"]))

class Longer:
    def prefer(self, prompts, first, second, context=None):
        return [0.5 + (len(a) - len(b)) / 100 for a, b in zip(first, second)]
"""


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("rule.py").write_text(RULE)
    rows = [
        example(*("a" * k for k in range(1, n + 1)), prompt=str(n), meta={"fields": {"size": n}}) for n in range(1, 8)
    ]
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps(row.to_dict()) + "\n" for row in rows))
    return file


def test_where_it_was_stopped_does_not_show(answers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feedback, labelling = {"name": "rule.py:Longer"}, Labelling(pairs="3", batch_size=2)
    way, totals = label_file(str(answers), tmp_path / "whole.jsonl", feedback, labelling)
    assert way == "prefer" and totals["left out"] == 1 and totals["prompts"] == 6
    assert totals["labelled"] == 1 + 5 * 3
    original, calls = Labeller.label, [0]

    def stop(self, examples):
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return original(self, examples)

    out = tmp_path / "out.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(module.Labeller, "label", stop)
        with pytest.raises(SystemExit) as end:
            label_file(str(answers), out, feedback, labelling)
    assert end.value.code == 130 and len(out.read_text().splitlines()) == 4
    assert label_file(str(answers), out, feedback, labelling) == (way, totals)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_the_output_is_preference_data(answers: Path, tmp_path: Path) -> None:
    for name, key, count in (("rule.py:Longer", "prefer", 6), ("rule.py:plain", "score", 7)):
        out = tmp_path / f"{key}.jsonl"
        label_file(str(answers), out, {"name": name}, Labelling())
        report = check(str(out))
        assert report.kept == count and report.pairs == sum(n * (n - 1) // 2 for n in range(2, 8)) and not report.wrong
        found, _ = pairs(load_examples(str(out)).examples)
        assert all(len(pair.chosen[0]["content"]) > len(pair.rejected[0]["content"]) for pair in found)
    soft, _ = pairs(load_examples(str(tmp_path / "prefer.jsonl")).examples)
    assert {round(pair.p_chosen, 4) for pair in soft} == {0.51, 0.52, 0.53, 0.54, 0.55, 0.56}
    singles, _ = unpaired(load_examples(str(tmp_path / "score.jsonl")).examples)
    assert singles


def test_the_command(answers: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["label", answers, "out.jsonl", "feedback=rule.py:close", "--reference", "size"]
    assert align(monkeypatch, *given) == 0
    printed = capsys.readouterr().out
    assert "answers scored" in printed and "28" in printed and "mean score" in printed
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [answer["score"] for answer in rows[2]["responses"]] == [-2.0, -1.0, 0.0]
    error = refused(monkeypatch, capsys, "label", answers, "out.jsonl", "feedback=rule.py:plain")
    assert "rule.py:close" in error and "rule.py:plain" in error and "--overwrite" in error
    assert align(monkeypatch, "label", answers, "out.jsonl", "feedback=rule.py:plain", "--overwrite") == 0
    Path("rule.py").write_text(RULE.replace("float(len(text))", "len(text) / 2"))  # the same name, another rule
    linecache.clearcache()
    assert "behind it" in refused(monkeypatch, capsys, "label", answers, "out.jsonl", "feedback=rule.py:plain")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nowhere.jsonl", "o.jsonl", "feedback=rule.py:plain"], "nowhere.jsonl"),
        (["prompts.jsonl", "o.jsonl", "feedback=rule.py:plain"], "nothing to label"),
        (["answers.jsonl", "o.jsonl", "feedback=no_such_rule"], "no_such_rule"),
        (["answers.jsonl", "o.jsonl", "feedback=plain_words", "feedback.tarket=3"], "did you mean target"),
        (["answers.jsonl", "answers.jsonl", "feedback=rule.py:plain"], "is what is read"),
        (["answers.jsonl", "rule.py/o.jsonl", "feedback=rule.py:plain"], "cannot write"),
        (["answers.jsonl", "mine.jsonl", "feedback=rule.py:plain"], "no output of this command"),
        (["answers.jsonl", "o.jsonl", "feedback=rule.py:plain", "--pairs", "some"], "best_worst"),
        (["answers.jsonl", "o.jsonl", "feedback=rule.py:plain", "--as", "scores"], "did you mean score"),
        (["answers.jsonl", "o.jsonl", "feedback=rule.py:plain", "--as", "review"], "no judgments"),
        (["answers.jsonl", "o.jsonl", "feedback=rule.py:close", "--reference", "sise"], "did you mean size"),
    ],
)
def test_bad_input(
    arguments: list[str],
    word: str,
    answers: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("prompts.jsonl").write_text('{"prompt": "Why?"}\n')
    Path("mine.jsonl").write_text("{}\n")
    assert word in refused(monkeypatch, capsys, "label", *arguments)
    assert not Path("o.jsonl").exists()
