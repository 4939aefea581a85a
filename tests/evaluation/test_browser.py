"""The pages in a real browser: clicked, filtered and looked at on a phone; no errors, no requests.

CHROMIUM names the browser where it is not one of the usual commands.
"""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from alignment.evaluation.compare import compare
from alignment.evaluation.compare_page import write_comparison
from alignment.evaluation.report import write_report
from alignment.evaluation.sample_browser import MOST

from .fake_run import make_run, write_lines
from .test_report import HOSTILE

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the dev extra has it)")
COMMANDS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, COMMANDS)), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium)"),
    pytest.mark.xdist_group("browser"),  # one worker, one launch
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        try:
            launched = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        except playwright.Error as error:  # a stub of another package system, or libraries are missing
            pytest.skip(f"{CHROMIUM} does not start: {' '.join(str(error).split())[:200]}")
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Opens a file in a context of its own, with the options given. No page may complain, or ask for anything more."""
    complaints: list[str] = []
    contexts = []

    def opened(file: Path, **options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.route("**/*", lambda route: route.continue_() if route.request.url == file.as_uri() else route.abort())
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.on(
            "request",
            lambda request: None if request.url in (file.as_uri(), "data:,") else complaints.append(request.url),
        )
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """45 answers: the change of number i is i - 20, where 5 has no score; 7 is much longer than the others."""
    run = make_run(tmp_path_factory.mktemp("report"), samples=1)
    rows = []
    for i in range(1, 46):
        before = f"The answer {i} was a plain one and it had the word basil in it."
        after = f"The answer {i} is a plain one and it has the word {'parsley' if i % 2 else 'basil'} in it."
        row = {"prompt": f"Question {i}?", "before": before, "after": after, "score_before": 0, "score_after": i - 20}
        rows.append({**row, "tokens_before": 14, "tokens_after": 99 if i == 7 else 14})
    rows[4]["score_after"] = None
    write_lines(run / "samples.jsonl", rows)
    return write_report(run)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every hostile text everywhere: as prompt, answer, name of the recipe, of the score and of a metric."""
    text = "".join(HOSTILE[:3])
    run = make_run(tmp_path_factory.mktemp("hostile"), samples=1, recipe=text, score={"name": text, "before": 0})
    rows = [{"prompt": text, "before": text + " one two", "after": text + " one three"} for text in HOSTILE]
    rows[0] |= {"__proto__": {"polluted": 1}, "score_before": float("nan"), "score_after": 1}
    write_lines(run / "samples.jsonl", rows)
    metrics = [{"step": step, "loss": 1 / step, HOSTILE[1]: step, "__proto__": step} for step in range(1, 20)]
    write_lines(run / "metrics.jsonl", metrics)
    (run / "x.section.json").write_text('{"title": "<img src=x>", "columns": ["<b>"], "rows": [["</script>"]]}')
    return write_report(run)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: 2 answers as 1 does and scores one more; 3 has the first 5 of the 8 prompts and scores one less."""
    folder = tmp_path_factory.mktemp("comparison")
    runs = [make_run(folder / name, seed=seed, samples=8) for seed, name in enumerate(("first", "second", "third"))]
    for run, change, count in zip(runs, (0, 1, -1), (8, 8, 5), strict=True):
        rows: list[dict[str, Any]] = []
        for i in range(count):
            answer = f"One answer of words to read with {'hot' if change < 0 else 'cold'} tea on a day like this, {i}."
            rows.append({"prompt": f"Question {i}?", "before": "", "after": answer, "score_after": i + change})
        write_lines(run / "samples.jsonl", rows)
    return write_comparison(compare(runs, Console(file=io.StringIO())), folder / "comparison.html")


@pytest.fixture(scope="module")
def many_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven runs with long names and a long setting."""
    folder = tmp_path_factory.mktemp("many")
    runs = [make_run(folder / f"a_long_name_without_a_space_in_it_{i}" / "run", seed=i, samples=2) for i in range(7)]
    for run in runs:
        (run / "config.yaml").write_text(f"data: {{path: {str(run).replace('/', '_') * 3}}}")
    return write_comparison(compare(runs, Console(file=io.StringIO())), folder / "many.html")


def prompts(page: Any) -> list[int]:
    return [int(re.sub(r"\D", "", text)) for text in page.locator("#samples .prompt").all_inner_texts()]


def wide(page: Any) -> int:
    """By how many pixels the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def test_answers_are_searched_filtered_sorted_and_turned_over(open_page: Open, report: Path) -> None:
    page = open_page(report)
    count, search = page.locator("#count"), page.get_by_role("searchbox", name="Search prompts and answers")
    assert prompts(page) == list(range(1, 21)) and count.inner_text() == "45 of 45, showing 1 to 20"
    assert page.locator("#previous").is_disabled()

    page.get_by_role("button", name="next").click()
    page.get_by_role("button", name="next").press("Enter")
    assert prompts(page) == list(range(41, 46)) and count.inner_text() == "45 of 45, showing 41 to 45"
    assert page.locator("#next").is_disabled() and page.locator("#where").inner_text() == "page 3 of 3"

    search.fill("PARSLEY question 1")  # both words: 1, 11, 13, 15, 17, 19, and the 21, 31, 41 that hold a 1
    assert prompts(page) == [1, 11, 13, 15, 17, 19, 21, 31, 41]
    assert count.inner_text() == "9 of 45" and page.locator("#turn").is_hidden()
    search.fill("no such answer")
    assert prompts(page) == [] and count.inner_text() == "0 of 45"
    search.fill("")

    shown = page.get_by_label("Filter by how the score changes")
    for kind, expected in (("plain", [20]), ("none", [5]), ("good", list(range(21, 41)))):
        shown.select_option(kind)
        assert prompts(page) == expected
    shown.select_option(label="worse")
    assert count.inner_text() == "18 of 45" and prompts(page) == [i for i in range(1, 20) if i != 5]

    order = page.get_by_label("Order")
    order.select_option(label="largest fall first")
    assert prompts(page)[:3] == [1, 2, 3]
    shown.select_option("all")
    order.select_option(label="largest rise first")
    assert prompts(page)[:3] == [45, 44, 43]
    page.locator("#next").click()
    page.locator("#next").click()
    assert prompts(page)[-1] == 5  # what was not scored comes last
    order.select_option(label="longest answer first")
    assert prompts(page)[:3] == [7, 1, 2]
    order.select_option(label="shortest answer first")
    assert prompts(page)[:7] == [1, 2, 3, 4, 5, 6, 8]


def test_an_answer_shows_what_differs(open_page: Open, report: Path) -> None:
    page = open_page(report)
    page.get_by_role("searchbox").fill("question 7?")
    card = page.locator("#samples article").first
    assert card.locator("del").all_inner_texts() == ["was", "had", "basil"]
    assert card.locator("ins").all_inner_texts() == ["is", "has", "parsley"]
    assert card.locator(".model-text").nth(1).inner_text() == (
        "The answer 7 was a plain one and it had the word basil in it."
    )
    assert card.locator(".badge").inner_text() == "change -13.00"
    assert "after: 99 tokens, score -13.00" in card.inner_text()


def test_a_chart_says_its_values(open_page: Open, report: Path) -> None:
    page = open_page(report)
    figure = page.locator("figure.chart").first
    svg, said = figure.locator("svg"), figure.locator("output")
    at_rest = said.inner_text()
    assert at_rest.startswith("step 48: training 0.") and "held-out 0." in at_rest
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] / 2)
    assert re.fullmatch(r"step 2\d: training [\d.]+; held-out [\d.]+( \(step 24\))?", said.inner_text())
    assert figure.locator(".cursor").evaluate("line => getComputedStyle(line).display") == "inline"
    page.mouse.move(box["x"], box["y"] - 30)
    assert said.inner_text() == at_rest
    svg.focus()
    page.keyboard.press("ArrowLeft")
    assert said.inner_text().startswith("step 47: training ")
    assert svg.get_attribute("aria-label").startswith("Loss over the optimizer steps: step 48")


def test_without_scripts_the_page_is_the_same(open_page: Open, hostile: Path, report: Path) -> None:
    def texts(page: Any) -> list[str]:
        return [" ".join(text.split()) for text in page.locator("#samples article").all_text_contents()]

    for file in (report, hostile):
        plain = open_page(file, java_script_enabled=False)
        assert texts(plain) == texts(open_page(file)) != []
        assert plain.locator("#tools").is_hidden()
        told = plain.locator("noscript").all_inner_texts()
        assert told == (["The first 20 of 45; a browser with JavaScript shows the others."] if file == report else [])


def test_hostile_text_is_text(open_page: Open, hostile: Path) -> None:
    page = open_page(hostile)
    shown = page.locator("#samples article")
    assert shown.count() == len(HOSTILE)
    for place, text in enumerate(HOSTILE[:3]):
        assert shown.nth(place).locator(".prompt").text_content() == text
        assert shown.nth(place).locator(".model-text").nth(2).text_content() == f"{text} one three"
    assert "<U+202E><U+2066>right to left" in shown.nth(3).inner_text()
    assert len(shown.last.locator(".prompt").text_content()) < MOST + 50
    assert page.locator("img, a, iframe, b.x").count() == 0
    assert page.evaluate("({}).polluted === undefined && document.scripts.length === 2")
    page.get_by_role("searchbox").fill("</script><script>")
    assert page.locator("#count").inner_text() == f"1 of {len(HOSTILE)}"


def test_no_script_but_the_pages_own_runs(browser: Any, report: Path) -> None:
    page = browser.new_page()
    page.goto(report.as_uri())
    add = "{const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s)}"
    assert page.evaluate(f"() => {add}") is None and page.evaluate("window.ran") is None
    page.close()


@pytest.mark.parametrize("name", ["report", "hostile", "comparison", "many_runs"])
def test_a_phone_need_not_scroll_sideways(open_page: Open, name: str, request: pytest.FixtureRequest) -> None:
    page = open_page(request.getfixturevalue(name), color_scheme="dark", **PHONE)
    assert wide(page) == 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 18, 23)"
    tick = page.locator(".tick").first.bounding_box()
    assert tick["height"] >= 10  # pixels: the numbers at the axes can be read
    for details in page.locator("details").all():
        details.locator("summary").tap()
    page.get_by_role("searchbox").fill("e")
    assert wide(page) == 0
    page.emulate_media(media="print")
    assert page.locator("#tools").is_hidden()


def test_runs_are_compared_side_by_side(open_page: Open, comparison: Path) -> None:
    page = open_page(comparison)
    assert "5 prompts are shared by all 3 runs; left out, as others lack them: 3 of 1 · first, 3 of 2 · second." in (
        page.locator("main").inner_text()
    )
    card = page.locator("#samples article").first
    assert card.locator(".badge").all_inner_texts() == ["run 2: change +1.00", "run 3: change -1.00"]
    assert card.locator(".side").all_inner_texts()[1:] == [
        "2 · second: score +1.00, the same text",
        "3 · third: score -1.00",
    ]
    assert card.locator("ins").all_inner_texts() == ["hot"]

    page.get_by_label("Filter by how the score changes").select_option("good")
    assert prompts(page) == [0, 1, 2, 3, 4]
    page.get_by_label("Whose scores are held against the first one's").select_option(label="run 3 against run 1")
    assert prompts(page) == [] and page.locator("#count").inner_text() == "0 of 5"

    figure = page.locator("figure.chart").first
    assert figure.locator("polyline").count() == 3
    assert re.match(r"step 48: run 1 [\d.]+; run 1, held-out [\d.]+; run 2 ", figure.locator("output").inner_text())


def test_a_thousand_answers_are_one_page_at_a_time(open_page: Open, tmp_path: Path) -> None:
    run = make_run(tmp_path, steps=1, samples=1000)
    page = open_page(write_report(run))
    assert page.locator("#count").inner_text() == "1000 of 1000, showing 1 to 20"
    page.get_by_role("searchbox").fill("basil")
    page.get_by_label("Order").select_option("up")
    assert page.locator("#count").inner_text() == "125 of 1000, showing 1 to 20"
    assert page.locator("article").count() == 20
