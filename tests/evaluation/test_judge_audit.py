"""The audit of judges whose habits are known, and the command as a user runs it."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest

from alignment.data.example import Example, Preference, Response
from alignment.evaluation.judge_audit import Item, ask, labelled_pairs, measure
from alignment.evaluation.judge_audit_report import draw, short
from alignment.feedback.adapters import BradleyTerry, Function
from tests.commands import align, refused

PROMPT = [{"role": "user", "content": "Why?"}]


class Judge:
    """P(first better) by a function of the two texts; keeps count of what was asked."""

    def __init__(self, rule) -> None:
        self.rule, self.asked = rule, 0

    def prefer(self, prompts, first, second, context=None):
        self.asked += len(first)
        return [self.rule(a, b) for a, b in zip(first, second, strict=True)]


def items(count: int = 200, seed: int = 0) -> list[Item]:
    """People prefer the longer answer in about 7 of 10 pairs; the better one always stands first."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        long, short = "word " * rng.randint(6, 9) + str(number), "word " * rng.randint(1, 4) + str(number)
        first, second = (long, short) if rng.random() < 0.7 else (short, long)
        made.append(Item([{"role": "user", "content": f"Question {number}"}], first, second, [1.0]))
    return made


def audited(rule, made: list[Item], again: int = 50):
    judge = Judge(rule)
    return measure("made", made, ask(judge, made, again, 32, 0)), judge


def length_rule(a: str, b: str) -> float:
    return float(len(a.split()) > len(b.split()))


def test_a_judge_that_always_says_first() -> None:
    audit, judge = audited(lambda a, b: 1.0, items())
    assert judge.asked == 200 + 200 + 50
    found = {key: estimate.value for key, estimate in audit.estimates.items()}
    assert found["agreement"] == found["agreement without ties"] == 0.5  # and not 1, though the better one stands first
    assert found["kappa"] == pytest.approx(0.0)
    assert found["first preferred"] == found["flips with the order"] == found["same verdict again"] == 1.0
    assert found["length coefficient"] == pytest.approx(0.0, abs=1e-4)
    assert found["no verdict"] == 0.0


def test_a_judge_that_goes_by_length() -> None:
    made = items()
    longer = sum(length_rule(item.first, item.second) for item in made) / len(made)
    audit, _ = audited(length_rule, made)
    found = {key: estimate.value for key, estimate in audit.estimates.items()}
    assert found["agreement"] == pytest.approx(longer)
    assert found["kappa"] == pytest.approx(2 * longer - 1)  # presented both ways round, chance is one half
    assert found["agreement, longer is better"] == 1.0 and found["agreement, shorter is better"] == 0.0
    assert found["length coefficient"] > 3
    assert found["first preferred"] == 0.5 and found["flips with the order"] == 0.0


def test_a_judge_that_agrees_with_people_has_no_length_coefficient() -> None:
    made = items(400)
    best = {item.first for item in made}
    audit, _ = audited(lambda a, b: float(a in best), made)
    assert audit.estimates["agreement"].value == audit.estimates["kappa"].value == 1.0
    low, high = audit.estimates["length coefficient"][1:3]
    assert low < 0.5 and abs(audit.estimates["length coefficient"].value) < 1.5 and high > -0.5


def test_a_noisy_judge() -> None:
    made, rng = items(600), random.Random(1)
    best = {item.first for item in made}
    audit, _ = audited(lambda a, b: float((a in best) != (rng.random() < 0.25)), made, again=600)
    agreement, kappa = audit.estimates["agreement"], audit.estimates["kappa"]
    assert agreement.low < 0.75 < agreement.high and kappa.low < 0.5 < kappa.high
    again = audit.estimates["same verdict again"]
    assert again.low < 0.75**2 + 0.25**2 < again.high  # both right or both wrong
    assert audit.estimates["first preferred"].low < 0.5 < audit.estimates["first preferred"].high


def test_no_verdict_is_left_out_of_everything_and_counted() -> None:
    made = items(100)
    silent = {item.first for item in made[:25]}
    audit, _ = audited(lambda a, b: math.nan if a in silent or b in silent else length_rule(a, b), made)
    assert audit.estimates["no verdict"].value == 0.25
    assert audit.estimates["agreement"].n == 150  # both orders of 75
    assert audit.to_dict()["estimates"]["agreement"]["n"] == 150
    nothing, _ = audited(lambda a, b: math.nan, made)
    assert nothing.estimates["no verdict"].value == 1.0 and math.isnan(nothing.estimates["agreement"].value)
    assert nothing.to_dict()["estimates"]["agreement"]["value"] is None
    json.dumps(nothing.to_dict(), allow_nan=False)


def test_circles_over_the_rows_of_a_prompt() -> None:
    beats = {("a", "b"), ("b", "c"), ("c", "a")}
    made = [Item(PROMPT, *pair, [1.0]) for pair in (("a", "b"), ("b", "c"), ("a", "c"))]
    audit, _ = audited(lambda a, b: float((a, b) in beats), made)
    assert (audit.counts["circles"], audit.counts["triples"], audit.prompts) == (1, 1, 1)


def test_a_reward_is_asked_once() -> None:
    calls: list[int] = []

    def score(prompt, text, context):
        calls.append(1)
        return float(len(text))

    made = items(40)
    verdicts = ask(BradleyTerry(Function(score)), made, 0, 32, 0)
    assert len(calls) == 80 and not verdicts.both_asked
    assert verdicts.backward == pytest.approx(1 - verdicts.forward)
    assert measure("made", made, verdicts).estimates["flips with the order"].n == 0


def test_labelled_pairs_merge_annotators_and_take_scores() -> None:
    a, b, c = (Response.of(text) for text in "abc")
    rows = [
        Example(PROMPT, [a, b], [Preference(0, 1, 1.0), Preference(0, 1, 0.5), Preference(0, 1, math.nan)]),
        Example(PROMPT, [b, a], [Preference(0, 1, 1.0)]),  # the same two answers, the other way round
        Example(PROMPT, [a, a], [Preference(0, 1, 1.0)]),
        Example(PROMPT, [Response.of("x", score=2), Response.of("y", score=1), Response.of("z", score=1), c]),
    ]
    found = labelled_pairs(rows)
    assert [(item.first, item.second, item.votes) for item in found] == [
        ("a", "b", [1.0, 0.5, 0.0]),
        ("x", "y", [1.0]),
        ("x", "z", [1.0]),
        ("y", "z", [0.5]),
    ]
    assert found[0].human == 0.5


def test_several_annotators_beside_the_judge() -> None:
    made = [Item(PROMPT, str(n), f"{n} b", [1.0, 1.0, 0.0]) for n in range(30)]
    audit, _ = audited(lambda a, b: float(len(a) < len(b)), made)
    assert audit.estimates["human-human agreement"].value == pytest.approx(1 / 3)
    assert audit.estimates["agreement with one human"].value == pytest.approx(2 / 3)
    assert audit.estimates["agreement"].value == 1.0 and audit.counts["several annotators"] == 30


def test_names_and_picture() -> None:
    assert short("/data/pandalm/test.jsonl.gz") == "pandalm/test" and short("everyday") == "everyday"
    audit, _ = audited(length_rule, items(30))
    assert draw([audit, audit], "length").startswith(b"\x89PNG")


RULE = """
def shortest(prompt, text, context):
    return -len(text.split())
"""


def write_rows(path: Path) -> Path:
    rows = [
        {
            "prompt": f"Question {n}?",
            "response 1": "word " * (n % 5 + 1),
            "response 2": "word " * 3 + "end",
            "label": n % 3,
        }
        for n in range(30)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rule.py").write_text(RULE)
    data = str(write_rows(tmp_path / "rows.jsonl"))
    outputs = ["--json", "audit.json", "--plot", "audit.png"]
    assert align(monkeypatch, "judge", "audit", data, data, "feedback=rule.py:shortest", *outputs) == 0
    printed = capsys.readouterr().out
    assert "Cohen's kappa" in printed and "30 pairs" in printed
    stored = json.loads(Path("audit.json").read_text())
    assert len(stored["audits"]) == 2 and stored["audits"][0]["human ties"] == 10
    assert 0 <= stored["audits"][0]["estimates"]["agreement"]["value"] <= 1
    assert Path("audit.png").read_bytes().startswith(b"\x89PNG")
    assert align(monkeypatch, "judge", "audit", data, "feedback=rule.py:shortest", "--limit", "5") == 0
    assert "5 pairs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nowhere.jsonl", "feedback=rule.py:shortest"], "nowhere.jsonl"),
        (["feedback=rule.py:shortest"], "no data"),
        (["rows.jsonl", "feedback=no_such_rule"], "no_such_rule"),
        (["rows.jsonl", "feedback=rule.py:longest"], "longest"),
        (["prompts.jsonl", "feedback=rule.py:shortest"], "no pair"),
        (["rows.jsonl", "feedback=rule.py:shortest", "--json", "missing/audit.json"], "missing"),
    ],
)
def test_bad_input(
    arguments: list[str],
    word: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rule.py").write_text(RULE)
    write_rows(tmp_path / "rows.jsonl")
    Path("prompts.jsonl").write_text('{"prompt": "Why?"}\n')
    assert word in refused(monkeypatch, capsys, "judge", "audit", *arguments)


def test_ask_keeps_the_order_of_the_items() -> None:
    made = items(70)
    verdicts = ask(Judge(length_rule), made, 70, 8, 3)
    expected = np.array([length_rule(item.first, item.second) for item in made])
    assert (verdicts.forward == expected).all() and (verdicts.again == expected).all()
    assert (verdicts.backward == 1 - expected).all()
