"""Detected tokens in colour: which ones, how strong, and that a text can neither break a page nor drive a terminal."""

from __future__ import annotations

import html
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from alignment.config import DataConfig, JudgedConfig, ModelConfig
from alignment.data.views import Judged
from alignment.errors import UserError
from alignment.evaluation.highlight import (
    describe,
    highlight,
    highlight_parts,
    level,
    print_highlights,
    ratio,
    read_highlights,
    write_highlights,
    write_page,
)
from alignment.evaluation.highlight_file import highlight_file
from alignment.evaluation.report import write_report
from tests.evaluation.fake_run import make_run

ASK = [{"role": "user", "content": "How much is 3 + 9?"}]


@dataclass(frozen=True)
class Found:
    record: Judged
    ids: tuple[int, ...]
    log_ratio: list[float]


class Words:
    """A tokenizer whose ids are places in a list of words; the bytes of é are two ids."""

    words = ("The", " sum", " is", " 14", ".", "<end>", b"\xc3", b"\xa9", "<b>", "\x1b[31m")

    def decode(self, ids: Any, skip_special_tokens: bool = False) -> str:
        kept = [self.words[i] for i in ids if not (skip_special_tokens and self.words[i] == "<end>")]
        joined = b"".join(word if isinstance(word, bytes) else word.encode() for word in kept)
        return joined.decode("utf-8", errors="replace")


def found(ids: tuple[int, ...], ratios: list[float], wrong: Any = None, text: str = "The sum is 14.") -> Found:
    meta = {} if wrong is None else {"wrong": wrong}
    answer = [{"role": "assistant", "content": text}]
    nats = [math.log(value) for value in ratios]
    return Found(Judged("e", ASK, answer, "It says 14, but 3 + 9 is 12.", False, meta), ids, nats)


SUM = found((0, 1, 2, 3, 4, 5), [1.0, 0.5, 1.05, 20.0, 1.2, 0.9], wrong=[11, 13])


def test_tokens_over_the_margin_are_detected_and_the_planted_ones_known() -> None:
    (row,) = highlight([SUM], Words(), 1.1)
    assert [piece["text"] for piece in row["pieces"]] == ["The", " sum", " is", " 14", ".", "<end>"]
    assert [level(piece["nats"], 1.1) for piece in row["pieces"]] == [0, 0, 0, 4, 1, 0]
    assert [piece["wrong"] for piece in row["pieces"]] == [False, False, False, True, False, False]
    assert (row["prompt"], row["judgment"]) == (ASK[0]["content"], "It says 14, but 3 + 9 is 12.")


@pytest.mark.parametrize("wrong", [[11], [13, 11], [0, 99], ["a", "b"], 7, None])
def test_spans_that_are_none_mark_nothing(wrong: Any) -> None:
    (row,) = highlight([found(SUM.ids, [1.0] * 6, wrong)], Words(), 1.1)
    assert not any(piece["wrong"] for piece in row["pieces"])


def test_tokens_that_share_a_character_are_one_piece_with_the_larger_ratio() -> None:
    (row,) = highlight([found((0, 6, 7, 4), [1.0, 2.0, 5.0, 1.0], text="Theé.")], Words(), 1.1)
    assert [(p["text"], p["tokens"]) for p in row["pieces"]] == [("The", 1), ("é", 2), (".", 1)]
    assert row["pieces"][1]["nats"] == pytest.approx(math.log(5), abs=1e-4)


@pytest.mark.parametrize(
    ("times", "margin", "strength"),
    [(1.1, 1.1, 0), (1.11, 1.1, 1), (1.6, 1.1, 2), (4, 1.1, 3), (29, 1.1, 4), (31, 1.1, 5), (1.9, 2, 0), (2.5, 2, 1)],
)
def test_levels(times: float, margin: float, strength: int) -> None:
    assert level(math.log(times), margin) == strength
    assert level(math.log(times), math.inf) == 0


def test_ratios_are_written_for_people() -> None:
    written = [ratio(math.log(times)) for times in (0.5, 1.2, 7.44, 14.62, 315.4, 2e6)]
    assert written == ["0.5×", "1.2×", "7.4×", "14.6×", "315×", "over 1,000,000×"]


def test_summary_counts_tokens_and_known_errors() -> None:
    missed = found(SUM.ids, [1.0] * 6, wrong=[11, 13])
    rows = highlight([SUM, missed, found(SUM.ids, [2.0] * 6)], Words(), 1.1)
    assert describe(rows) == (
        "3 unsatisfactory answers, 44.4 % of their tokens detected; the known error is among them in 1 of 2"
    )
    assert describe(rows[2:]) == "1 unsatisfactory answers, 100.0 % of their tokens detected"
    assert describe([]) == "0 unsatisfactory answers, – of their tokens detected"


def test_terminal_names_and_colours_what_is_detected() -> None:
    plain = Console(file=io.StringIO(), width=120)
    coloured = Console(file=io.StringIO(), width=120, force_terminal=True, color_system="truecolor", no_color=False)
    for console in (plain, coloured):
        print_highlights(highlight([SUM], Words(), 1.1), console)
    text = plain.file.getvalue()  # type: ignore[attr-defined]
    assert "answer:   The sum is 14.<end>" in text
    assert "2 of 6 tokens detected: ' 14' 20×, '.' 1.2×" in text
    shown = coloured.file.getvalue()  # type: ignore[attr-defined]
    assert "The sum is\x1b[4;30;48;2;240;103;79m 14" in shown  # underlined, black on the fourth colour


HOSTILE = found((8, 9, 4), [9.0, 1.0, 1.0], text="<b>\x1b[31m.")


def test_texts_cannot_drive_the_terminal() -> None:
    console = Console(file=io.StringIO(), width=120)
    print_highlights(highlight([HOSTILE], Words(), 1.1), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in text and "<U+001B>[31m" in text


def test_page_is_whole_and_escaped(tmp_path: Path) -> None:
    rows = highlight([SUM, HOSTILE], Words(), 1.1)
    page = write_page(tmp_path / "page.html", rows, "A <title>", [("model", "tiny")]).read_text(encoding="utf-8")
    assert '<mark class="s4 planted" title="20×"> 14</mark>' in page
    assert '<mark class="s3" title="9×">&lt;b&gt;</mark>' in page
    assert "A &lt;title&gt;" in page and "<b>tiny</b>" in page and "\x1b" not in page
    assert "http" not in page.replace("http-equiv", "")  # it asks for nothing outside itself
    answers = re.findall(r'class="model-text answer" dir="auto">(.*?)</div>', page, re.DOTALL)
    texts = [html.unescape(re.sub(r"<[^>]+>", "", answer)) for answer in answers]
    assert texts == ["The sum is 14.<end>", "<b><U+001B>[31m."]  # no space is put in between tokens


def test_report_of_a_run_shows_its_highlights(tmp_path: Path) -> None:
    make_run(tmp_path)
    assert "What the judgments detect" not in write_report(tmp_path).read_text(encoding="utf-8")
    rows = highlight([SUM], Words(), 1.1)
    write_highlights(tmp_path, rows)
    assert read_highlights(tmp_path) == rows
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "What the judgments detect" in page and '<mark class="s4 planted" title="20×"> 14</mark>' in page


def test_legend_starts_at_the_margin() -> None:
    assert highlight_parts(highlight([SUM], Words(), 2.0))["levels"] == ["over 2×", "3×", "10×", "30×"]
    assert highlight_parts([])["highlights"] == []


def highlight_tiny(source: Any, **options: Any) -> tuple[list[dict[str, Any]], str]:
    given = {"margin": 1.1, "limit": 3, **options}
    return highlight_file(source, ModelConfig(path="tiny"), DataConfig(split="test"), JudgedConfig(), **given)


def test_a_model_highlights_the_planted_errors() -> None:
    rows, read = highlight_tiny("planted")
    assert "120 rows read, 120 kept" in read
    assert len(rows) == 3
    for row in rows:
        text = "".join(piece["text"] for piece in row["pieces"])
        assert text.endswith("<|im_end|>") and row["prompt"] and row["judgment"]
        assert any(piece["wrong"] for piece in row["pieces"])
    assert rows == highlight_tiny("planted")[0]
    assert rows != highlight_tiny("planted", variant="authors_code")[0]


def test_what_cannot_be_highlighted_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="margin=0: must be above 0"):
        highlight_tiny("planted", margin=0)
    with pytest.raises(UserError, match="no unsatisfactory answer with a judgment"):
        highlight_tiny("everyday")
    with pytest.raises(UserError, match="no adapter_config.json"):
        highlight_tiny("planted", adapter=str(tmp_path))
