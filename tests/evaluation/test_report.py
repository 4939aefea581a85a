from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignment.errors import UserError
from alignment.evaluation.report import write_report
from alignment.evaluation.sample_browser import MOST, PAGE

from .fake_run import config, make_run, summary, write_lines

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "{{7*7}}{% include 'x' %}",
    "\u202e\u2066right to left",
    "NUL \x00 ESC \x1b[2J",
    '"><a href="javascript:alert(1)">',
    "&lt;b&gt; stays as written",
    "wörd 你好 👩‍👧",
    "${alert(1)} `backtick` \\u0041 \u2028 line",
    "x" * 1_000_000,
)
VOID = {"meta", "link", "img", "input", "br", "source"}


class Page(HTMLParser):
    """What a browser makes of the page: its tags with attributes, its text, its data, and whether tags are balanced.

    What stands in a <template> is not on the page.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.data = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if "template" not in self.open:
            self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.data = self.data or data  # the first script is the data of the second
        else:
            self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def hostile_run(folder: Path, **overrides: Any) -> Path:
    run = make_run(folder, steps=1, **overrides)
    rows = [{"prompt": text, "before": text, "after": text, "score_before": 0, "score_after": 1} for text in HOSTILE]
    rows[0] |= {"__proto__": {"polluted": 1}, "constructor": 1}
    write_lines(run / "samples.jsonl", rows)
    (run / "metrics.jsonl").unlink()  # no pictures: faster, and the page must do without
    return run


def test_the_report_of_a_run_is_whole(tmp_path: Path) -> None:
    found = page(make_run(tmp_path / "run"))
    assert found.open == []
    text = " ".join(found.text.split())
    for words in ("dpo on smollm2-135m, seed 0", "2026-01-02 03:08 UTC", "+0.55", "95 % [+0.30, +0.80]", "1.23 ± 0.15"):
        assert words in text
    assert "excludes zero: the score rose" in text
    assert "learning_rate: 4.0e-05" in text
    assert "accelerate launch train.py recipe=dpo seed=0" in text
    assert len(found.of("article")) == 16
    assert len(found.of("figure")) == 5 + 2  # and what else was logged: learning rate, tokens per second
    assert "step 48: training" in text and "held-out" in text


def test_the_report_asks_for_nothing_outside_itself(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=3)
    found = page(run)
    for _, attributes in found.tags:
        for name in ("src", "srcset", "href", "action", "poster", "background"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not found.of("iframe")
    html = (run / "report.html").read_text()
    assert not re.search(r"url\(|@import|https?://", html)
    policy = next(meta["content"] for meta in found.of("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)  # the one that runs is the one that is allowed
    assert f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy


def test_model_text_stays_text(tmp_path: Path) -> None:
    found = page(hostile_run(tmp_path / "run"))
    assert found.open == []
    assert len(found.of("script")) == 2
    assert not found.of("img")
    assert not found.of("a")
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    for text in HOSTILE[:3] + HOSTILE[5:8]:
        assert found.text.count(text) >= 3  # prompt, before and after
    assert "49" not in found.text
    assert "<U+202E><U+2066>right to left" in found.text
    assert "NUL <U+0000> ESC <U+001B>[2J" in found.text
    assert "x" * MOST in found.text and "x" * (MOST + 1) not in found.text
    assert f"(+{1_000_000 - MOST:,} characters)" in found.text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", found.text)
    assert not re.search("[<>&\u2028\u2029]", found.data)
    rows = json.loads(found.data)["samples"]
    assert [row["prompt"] for row in rows[:3]] == list(HOSTILE[:3])
    assert all(set(row) == {"place", "prompt", "changes", "sides"} for row in rows)


@pytest.mark.parametrize("text", HOSTILE[:6])
def test_names_and_settings_stay_text_too(tmp_path: Path, text: str) -> None:
    score = {**summary(0, 1)["score"], "name": text}
    run = hostile_run(tmp_path / "run", recipe=text, model=text, score=score, versions={text: text}, data={text: text})
    (run / "config.yaml").write_text(yaml.safe_dump({**config(0), "description": text}), encoding="utf-8")
    found = page(run)
    assert found.open == []
    assert len(found.of("script")) == 2
    assert not found.of("img")
    assert not found.of("a")


def test_more_answers_than_a_page_are_data(tmp_path: Path) -> None:
    found = page(make_run(tmp_path / "run", steps=1, samples=PAGE + 5))
    assert len(found.of("article")) == PAGE
    assert len(json.loads(found.data)["samples"]) == PAGE + 5
    assert f"The first {PAGE} of {PAGE + 5}" in found.text  # to a reader without scripts


def test_a_missing_score_is_no_change(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=1)
    values = ((0, 1), (None, 1), (float("nan"), 1), (0, float("inf")), ("0", 1), (-1.7e308, 1.7e308), (0, 0.004))
    rows = [{"prompt": "p", "before": "a", "after": None, "score_before": x, "score_after": y} for x, y in values]
    write_lines(run / "samples.jsonl", rows)
    changes = [row["changes"][0] for row in json.loads(page(run).data)["samples"]]
    assert changes[0] == {"value": 1.0, "text": "change +1.00", "tone": "good"}
    assert changes[1:6] == [None] * 5
    assert changes[6]["tone"] == "plain"  # the same to two decimals


def test_further_sections_are_tables(tmp_path: Path) -> None:
    run = hostile_run(tmp_path / "run")
    rows = [[HOSTILE[0], 3, 0.12345678], [HOSTILE[1], None, float("nan")], [True, 12345, 1e-9]]
    content = {"title": HOSTILE[5], "text": HOSTILE[3], "columns": ["set", HOSTILE[1], "share"], "rows": rows}
    (run / "b.section.json").write_text(json.dumps(content))
    (run / "a.section.json").write_text(json.dumps({"title": "First", "columns": ["n"], "rows": [[1]] * 1002}))
    found = page(run)
    text = found.text
    assert found.open == [] and not found.of("img") and not found.of("a")
    assert text.index("First") < text.index(HOSTILE[5])
    assert "The first 1,000 of 1,002 rows; all are in a.section.json." in text
    for cell in (HOSTILE[0], "0.1235", "12,345", "1e-09", "yes", "<U+202E><U+2066>right to left"):
        assert cell in text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "indices"),
        ('{"title": "t", "rows": []}', "it has no 'columns'"),
        ('{"title": "t", "columns": "ab", "rows": []}', "columns must be a list"),
        ('{"title": "t", "columns": ["a"], "rows": [[1, 2]]}', "every row must have 1 cells"),
        ('{"title": "t", "columns": ["a"], "rows": ["x"]}', "rows a list of lists"),
        ("[" * 100_000, "recursion"),
        (b"\xff", "decode"),
    ],
)
def test_a_broken_section_is_named_and_the_report_stays(tmp_path: Path, content: str | bytes, reason: str) -> None:
    (tmp_path / "summary.json").write_text('{"recipe": "dpo"}')
    (tmp_path / "x.section.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    text = page(tmp_path).text
    assert "x.section.json" in text and "This section cannot be shown: " in text
    assert reason in text


def test_the_report_needs_the_summary_only(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"recipe": "dpo", "steps": 3}')
    found = page(tmp_path)
    assert found.open == []
    assert not found.of("script")
    assert not found.of("article")
    assert "Training curves" not in found.text
    (tmp_path / "summary.json").unlink()
    with pytest.raises(UserError, match=r"no summary\.json"):
        write_report(tmp_path)


@pytest.mark.parametrize("bounds", [[0.3, 0.8], [-0.8, -0.3], [-0.2, 0.3], [0.0, 0.0]])
def test_the_drawn_interval_lies_within_the_picture(tmp_path: Path, bounds: list[float]) -> None:
    score = {"name": "s", "before": 0, "after": 0, "difference": sum(bounds) / 2, "ci95": bounds}
    lines = page(hostile_run(tmp_path / "run", score=score)).of("line")
    places = {key: float(line[key] or "") for line in lines[1:] for key in ("x1", "x2")}
    assert len(lines) == 4
    assert all(0 <= place <= 100 for place in places.values())
    zero, low, high = (float(lines[i][key] or "") for i, key in ((1, "x1"), (2, "x1"), (2, "x2")))
    assert (low > zero, high < zero) == (bounds[0] > 0, bounds[1] < 0)


@pytest.mark.parametrize("bounds", [None, [], [0.1], [0.1, None], "x"])
def test_no_interval_is_no_picture(tmp_path: Path, bounds: Any) -> None:
    score = {"name": "s", "before": 0, "after": 1, "difference": 1, "ci95": bounds}
    assert not page(hostile_run(tmp_path / "run", score=score)).of("svg")
