"""Ratings against rankings: the table, the share and its interval by hand, and what the command prints."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alignment.cli import app
from alignment.data.checks import check
from alignment.data.example import Example, Preference, Response
from alignment.data.rating_agreement import rating_agreement
from alignment.errors import UserError

PROMPT = [{"role": "user", "content": "Which?"}]
DATA = Path(__file__).parents[3] / "shared" / "data"


def ranked(first: str, second: str, p_first: float) -> Example:
    return Example(PROMPT, [Response.of(first), Response.of(second)], [Preference(0, 1, p_first)])


def rated(text: str, *scores: float) -> list[Example]:
    return [Example(PROMPT, [Response.of(text, score=score)]) for score in scores]


def test_the_table_by_hand() -> None:
    ratings = [*rated("a", 5, 7), *rated("b", 6), *rated("c", 2), *rated("d", 7), *rated("e", math.nan)]
    rankings = [
        ranked("a", "b", 0.5),  # 6 on average and 6: equal, equal
        ranked("a", "b", 1.0),  # equal, first
        ranked("c", "d", 0.0),  # second, second
        ranked("d", "c", 0.2),  # first, second
        ranked("d", "b", 1.0),  # first, first
        ranked("a", "e", 1.0),  # no rating of e
        ranked("a", "z", 1.0),
        ranked("a", "c", math.nan),  # no verdict
    ]
    found = rating_agreement(rankings, ratings)
    assert found.table == {
        "first": {"first": 1, "second": 1, "equal": 0},
        "second": {"first": 0, "second": 1, "equal": 0},
        "equal": {"first": 1, "second": 0, "equal": 1},
    }
    assert (found.pairs, found.unrated, found.consistency, found.disagreement) == (5, 2, 0.6, 0.4)
    # Wilson: (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)
    z, n, p = 1.959963984540054, 5, 0.4
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert found.ci95 == pytest.approx(((middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)))


def test_the_same_text_to_another_prompt_is_another_answer() -> None:
    other = [Example([{"role": "user", "content": "What?"}], [Response.of(text, score=1.0)]) for text in "ab"]
    with pytest.raises(UserError, match="no two ranked answers are both rated"):
        rating_agreement([ranked("a", "b", 1.0)], other)


def test_the_command_shows_it_and_writes_it(tmp_path: Path) -> None:
    rankings, ratings = tmp_path / "rankings.jsonl", tmp_path / "ratings.jsonl"
    pairs = [("a", "b", "(a)"), ("c", "d", "equal")]
    rankings.write_text(
        "".join(
            json.dumps({"instruction": "Do.", "input": "nan", "response1": a, "response2": b, "feedback": said}) + "\n"
            for a, b, said in pairs
        )
    )
    scores = {"a": "6", "b": "3", "c": "5", "d": "4"}
    rows = [{"instruction": "Do.", "input": "nan", "response": text, "rating": scores[text]} for text in scores]
    ratings.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "report.json"
    done = CliRunner().invoke(
        app, ["data", "check", str(rankings), "--ratings", str(ratings), "--json", str(out)], env={"COLUMNS": "120"}
    )
    assert done.exit_code == 0, done.output
    assert "ratings disagree with the preferences on 50.0% of 2 pairs, ties included" in " ".join(done.output.split())
    stored = json.loads(out.read_text())["ratings"]
    assert stored["table"]["first"] == {"first": 1, "second": 0, "equal": 1} and stored["disagreement"] == 0.5


@pytest.mark.skipif(not DATA.is_dir(), reason="the real data is not beside the checkout")
def test_the_papers_own_annotations() -> None:
    found = check(
        str(DATA / "sparse_feedback_rankings" / "*.jsonl"),
        ratings_path=str(DATA / "sparse_feedback_ratings" / "*.jsonl"),
    ).ratings
    assert found is not None and (found.pairs, found.unrated) == (129, 9)
    assert [found.table[verdict][verdict] for verdict in ("first", "second", "equal")] == [26, 28, 18]
    assert found.disagreement == pytest.approx(57 / 129)
