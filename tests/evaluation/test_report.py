from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignment.errors import UserError
from alignment.evaluation.report import write_report

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
    "x" * 50_000,
)
VOID = {"meta", "link", "img", "input", "br", "source"}


class Page(HTMLParser):
    """What a browser makes of the page: its tags with attributes, its text, and whether tags are balanced."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def hostile_run(folder: Path, **overrides: Any) -> Path:
    run = make_run(folder, steps=1, **overrides)
    rows = [{"prompt": text, "before": text, "after": text, "score_before": 0, "score_after": 1} for text in HOSTILE]
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
    assert len(found.of("img")) == len(found.of("source")) == 4  # four panels, light and dark


def test_the_report_asks_for_nothing_outside_itself(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=3)
    found = page(run)
    for _, attributes in found.tags:
        for name in ("src", "srcset", "href", "action", "poster", "background"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not found.of("link")
    assert not found.of("iframe")
    html = (run / "report.html").read_text()
    assert not re.search(r"url\(|@import|https?://", html)
    policy = next(meta["content"] for meta in found.of("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_model_text_stays_text(tmp_path: Path) -> None:
    found = page(hostile_run(tmp_path / "run"))
    assert found.open == []
    assert len(found.of("script")) == 1
    assert not found.of("img")
    assert not found.of("a")
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    for text in HOSTILE[:3] + HOSTILE[5:8]:
        assert found.text.count(text) >= 3  # prompt, before and after
    assert "49" not in found.text
    assert "<U+202E><U+2066>right to left" in found.text
    assert "NUL <U+0000> ESC <U+001B>[2J" in found.text
    assert "x" * 50_000 in found.text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", found.text)


@pytest.mark.parametrize("text", HOSTILE[:6])
def test_names_and_settings_stay_text_too(tmp_path: Path, text: str) -> None:
    score = {**summary(0, 1)["score"], "name": text}
    run = hostile_run(tmp_path / "run", recipe=text, model=text, score=score, versions={text: text}, data={text: text})
    (run / "config.yaml").write_text(yaml.safe_dump({**config(0), "description": text}), encoding="utf-8")
    found = page(run)
    assert found.open == []
    assert len(found.of("script")) == 1
    assert not found.of("img")
    assert not found.of("a")


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
