"""Overlap of evaluation sets with training data: by hand, against sets of tuples, and on leaks that are known."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from alignment.data import contamination as module
from alignment.data import overlap_texts
from alignment.data.contamination import Contamination, contamination, embedded
from alignment.data.contamination_rendering import EXAMPLES, SECTION, render, write_sections
from alignment.data.near_duplicates import NearestTexts, nearest_vectors
from alignment.data.ngrams import NgramIndex
from alignment.data.overlap_texts import Row, example_rows, merged, record_rows, words
from alignment.data.readers import load_examples
from alignment.data.views import pairs
from alignment.errors import UserError
from alignment.evaluation.sections import read_sections
from alignment.launch.contamination import of_run, write_contamination

from ..commands import align, refused

LETTERS = st.lists(st.sampled_from("abc"), max_size=7).map(" ".join)
ROWS = st.lists(st.tuples(LETTERS, LETTERS), max_size=6)


def row(name: str, prompt: str, *answers: str, system: str | None = None) -> Row:
    turns = [{"role": "system", "content": system}] if system else []
    return Row(name, [*turns, {"role": "user", "content": prompt}], answers)


def rows(prefix: str, texts: list[tuple[str, str]]) -> list[Row]:
    return [row(f"{prefix}{place}", prompt, answer) for place, (prompt, answer) in enumerate(texts)]


def prompt_part(train: list[Row], held: list[Row], **options: Any) -> module.PartOverlap:
    return contamination(train, {"set": held}, **options).sets["set"][0]


def test_words_have_no_case_and_no_punctuation() -> None:
    assert words("Don't stop_ME, now: 3.5 %!\x1b") == ["dont", "stop", "me", "now", "3", "5"]
    assert words("L’été — “ﬁn” x²") == ["lété", "fin", "x2"]
    assert words("漢字 and カナ。") == ["漢", "字", "and", "カ", "ナ"]
    assert words("STRASSE") == words("straße") == ["strasse"]


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(max_codepoint=127), max_size=30))
def test_the_fast_way_through_ascii_gives_the_words_of_the_slow_one(text: str) -> None:
    assert words(text) == overlap_texts._WORD.findall(text.lower().replace("'", ""))


def test_shares_by_hand() -> None:
    # 3-grams of the prompt: abc bcd cde; abc is in a prompt, cde in an answer. Of the answer: xyz alone, in none.
    train = [row("t1", "a b c", "q c d e"), row("t2", "b c x", "y")]
    [prompt, answers] = contamination(train, {"set": [row("e", "A, b! c d e.", "x y z")]}, n=3).sets["set"]
    assert (prompt.examples, prompt.short, prompt.any, prompt.over, prompt.exact, prompt.near) == (1, 0, 1, 1, 0, None)
    assert (prompt.in_prompts, prompt.in_answers) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert prompt.share == pytest.approx(2 / 3)
    [flagged] = prompt.flagged
    assert (flagged.id, flagged.ngrams, [(one.row, one.shared) for one in flagged.rows]) == ("e", 3, [("t1", 2)])
    assert (answers.any, answers.share, answers.flagged) == (0, 0.0, [])


def test_a_text_below_n_words_is_found_as_a_whole_only() -> None:
    held = [row("e", "two words")]
    assert prompt_part([row("t", "some two words here")], held).any == 0
    found = prompt_part([row("t", "other", "Two words!")], held)
    assert (found.short, found.any, found.in_answers, found.in_prompts) == (1, 1, 1.0, 0.0)


def grams(texts: list[str], n: int) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    for text in texts:
        cut = text.split()
        found |= {tuple(cut[at : at + n]) for at in range(len(cut) - n + 1)}
        if 0 < len(cut) < n:
            found.add(("whole", *cut))
    return found


@settings(max_examples=150, deadline=None)
@given(ROWS, ROWS, st.integers(1, 4), st.integers(1, 3))
def test_shares_are_those_of_sets_of_tuples(train: list, held: list, n: int, batch: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BATCH", batch)
        found = contamination(rows("t", train), {"set": rows("e", held)}, n=n, threshold=1e-9)
    seen = [grams([texts[side] for texts in train], n) for side in (0, 1)]
    parts = {part.part: part for part in found.sets["set"]}
    for side, name in enumerate(("prompt", "answers")):
        mine = [grams([texts[side]], n) for texts in held]
        wanted = [[len(own & some) / len(own) for some in (*seen, seen[0] | seen[1])] for own in mine if own]
        part = parts.get(name)
        assert (part.examples if part else 0) == len(wanted)
        if wanted and part:
            means = np.mean(wanted, axis=0)
            assert (part.in_prompts, part.in_answers, part.share) == pytest.approx(tuple(means))
            assert part.any == part.over == sum(values[2] > 0 for values in wanted)


@settings(max_examples=50, deadline=None)
@given(ROWS, st.lists(LETTERS, min_size=1, max_size=4), st.integers(1, 3))
def test_counts_are_of_distinct_rows_and_their_first_ones_are_kept(train: list, held: list[str], n: int) -> None:
    index = NgramIndex([words(text) for text in held], n)
    for place, texts in enumerate(train):  # a batch each
        index.add((place, side, text) for side, text in enumerate(texts))
    for text, places in zip(held, index.grams, strict=True):
        assert len(places) == len(grams([text], n))
    every = {gram for text in held for gram in grams([text], n)}
    for side in (0, 1):
        wanted = [[at for at, texts in enumerate(train) if gram in grams([texts[side]], n)] for gram in every]
        got = [index.rows(gram, side) for gram in range(len(index.counts))]
        assert sorted(got) == sorted(wanted)  # fewer rows than are kept
        assert sorted(index.counts[:, side]) == sorted(map(len, wanted))


def test_exact_copies_whatever_case_white_space_and_system_text() -> None:
    train = [
        row("t1", "why  IS it so", "It just is."),
        row("t2", "Why is it so?", "No idea."),
        row("t3", "x", "it just is."),
    ]
    held = [row("e1", "Why is it so", "it just  is."), row("e2", "Why is it so?", "It is.", system="Be brief.")]
    [prompt, answers] = contamination(train, {"set": held}).sets["set"]
    assert prompt.exact == 2
    assert {one.id: one.exact for one in prompt.flagged} == {"e1": ["t1"], "e2": ["t2"]}
    assert answers.exact == 1  # the answer alone, under another prompt, is no copy of the example
    assert answers.flagged[0].exact == ["t1"]


def test_the_beginning_of_a_training_conversation_is_a_copy() -> None:
    said = [("user", "Why?"), ("assistant", "Since."), ("user", "And now?")]
    train = Row("t", [{"role": role, "content": text} for role, text in said], ("Then.",))
    held = [row("e1", "why?", "since."), row("e2", "And now?", "Then."), row("e3", "Why?", "Then.")]
    [prompt, answers] = contamination([train], {"set": held}).sets["set"]
    assert sorted(one.id for one in prompt.flagged if one.exact) == ["e1", "e3"]  # the last turn alone is no prompt
    assert [one.id for one in answers.flagged if one.exact] == ["e1"]


def test_many_copies_are_named_up_to_five() -> None:
    found = prompt_part([row(f"t{place}", "the same prompt") for place in range(9)], [row("e", "the same prompt")])
    assert found.flagged[0].exact == ["t0", "t1", "t2", "t3", "t4"]


def test_boilerplate_is_left_out_where_it_is_asked_for() -> None:
    train = [row(f"t{place}", "below is a task") for place in range(3)] + [row("t3", "sum one and two")]
    held = [row("e1", "below is a task sum one and two"), row("e2", "below is a task")]
    assert prompt_part(train, held, n=4, threshold=0.1).share == pytest.approx((2 / 5 + 1) / 2)
    found = prompt_part(train, held, n=4, threshold=0.1, most_rows=2)
    assert (found.examples, found.share) == (1, pytest.approx(1 / 4))  # of the second nothing is left to count
    assert found.exact == 1


def cosine(first: str, second: str) -> float:
    one, other = (
        Counter(text[at : at + 5] for text in [f" {' '.join(words(raw))} "] for at in range(len(text) - 4))
        for raw in (first, second)
    )
    norm = math.sqrt(sum(v * v for v in one.values()) * sum(v * v for v in other.values()))
    return sum(count * other[gram] for gram, count in one.items()) / norm


def test_near_copies_have_the_cosine_of_their_character_ngrams() -> None:
    text = "Explain to a child of ten why the sky is blue in the morning."
    close = "Explain to a child of nine why the sky is blue in the morning!"
    far = "Give me a recipe for bread without yeast, please."
    found = prompt_part([row("t1", far), row("t2", close)], [row("e1", text), row("e2", far)], near=0.8)
    assert (found.near, found.exact) == (1, 1)
    by_id = {one.id: one for one in found.flagged}
    assert by_id["e1"].near == ("t2", pytest.approx(cosine(text, close)))
    assert by_id["e2"].near == ("t1", pytest.approx(1.0))
    assert prompt_part([row("t1", far)], [row("e1", text)], near=0.8).flagged == []


def test_the_nearest_of_many_texts_is_that_of_comparing_with_all() -> None:
    texts = [example.prompt[-1]["content"] for example in load_examples("everyday", split="train").examples][:60]
    held = [" ".join(text.split()[:-1]) for text in texts[:20]] + ["quite another thing", ""]
    nearest = NearestTexts(held, 0.7)
    for start in range(0, 60, 25):
        nearest.add(list(range(start, min(60, start + 25))), texts[start : start + 25])
    for place, text in enumerate(held[:-1]):
        all_of_them = [cosine(text, other) for other in texts]
        if max(all_of_them) > 0.7:
            assert nearest.cosines[place] == pytest.approx(max(all_of_them))
            assert all_of_them[nearest.rows[place]] == pytest.approx(max(all_of_them))
        else:
            assert nearest.rows[place] == -1
    assert nearest.rows[-1] == -1


def test_nearest_vectors_by_hand() -> None:
    held = np.array([[1.0, 0.0], [0.0, 1.0]])
    streamed = [([0, 1], np.array([[2.0, 0.0], [-3.0, -1.0]])), ([2], np.array([[0.0, 5.0]]))]
    cosines, found = nearest_vectors(held, streamed)  # the mean of the first four is zero
    assert found.tolist() == [0, 2]
    assert cosines == pytest.approx([1.0, 1.0])
    none = nearest_vectors(held, [])
    assert none[1].tolist() == [-1, -1] and np.isnan(none[0]).all()


def test_embeddings_name_the_nearest_training_prompt() -> None:
    vectors = {"p": [1.0, 0.1], "q": [0.1, 1.0], "r": [-1.0, -1.0]}
    train, held = [row("t1", "p"), row("t2", "q"), row("t3", "r")], [row("e1", "q"), row("e2", "r")]
    found = embedded(train, {"a": held[:1], "b": held[1:]}, "m", lambda texts: np.array([vectors[t] for t in texts]))
    assert [(name, one.over, one.nearest[0][:2]) for name, one in found.items()] == [
        ("a", 1, ("e1", "t2")),
        ("b", 1, ("e2", "t3")),
    ]


def test_mean_pooled_states_do_not_depend_on_the_batch() -> None:
    import torch

    from alignment.models.embeddings import Embedder

    embedder = Embedder("tiny", batch_size=2)
    texts = ["A short one.", "Another text, which is a good deal longer than that.", "", "Third."]
    vectors = embedder(texts)
    ids = torch.tensor([embedder.tokenizer(texts[0], add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        states = embedder.body(input_ids=ids).last_hidden_state[0]
    np.testing.assert_allclose(vectors[0], states.mean(0).numpy(), atol=1e-5)
    assert not vectors[2].any()


@pytest.mark.parametrize(
    ("options", "said"),
    [({"n": 0}, "n=0"), ({"threshold": 0.0}, "threshold"), ({"near": 2.0}, "near"), ({"most_rows": 0}, "most_rows")],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        contamination([], {}, **options)


def test_nothing_in_common_nothing_streamed_and_an_empty_set() -> None:
    assert prompt_part([], [row("e", "a b c")]).share == 0
    assert prompt_part([row("t", "a")], []).over_ci95 is None
    assert prompt_part([row("t", "")], [row("e", "…")]).examples == 0  # no word in it


def test_rows_of_records_have_all_their_answers_once_a_prompt() -> None:
    examples = load_examples("everyday", split="test").examples
    records = list(record_rows(pairs(examples)[0]))
    assert all(len(record.answers) == 2 for record in records)
    by_prompt = merged(records)
    assert len(by_prompt) == len({one.key for one in records})
    assert {answer for one in by_prompt for answer in one.answers} <= {
        answer for one in example_rows(examples) for answer in one.answers
    }


def leaky() -> Contamination:
    hostile = "copy [bold]me[/bold] \x1b[31m now </script> one two three"
    train = [row(f"t{place}", f"{hostile} {place % 3}", "an answer") for place in range(9)]
    return contamination(train, {"folder/set.jsonl": [row("e[red]", f"{hostile} 1", "another")]}, near=0.8)


def test_what_is_printed_names_the_rows_and_shows_text_as_it_stands() -> None:
    file = io.StringIO()
    render(leaky(), Console(file=file, width=100))
    text = " ".join(file.getvalue().split())
    assert "e[red]: exact copy of t1, t4, t7; 100 % of" in text
    assert "copy [bold]me[/bold] <U+001B>[31m now" in text and "\x1b[31m" not in text
    assert "95 % interval" in text and "20.7 to 100.0 %" in text  # Wilson of 1 in 1


def test_sections_are_what_the_report_reads(tmp_path: Path) -> None:
    write_sections(leaky(), tmp_path)
    main, examples = read_sections(tmp_path)
    assert (tmp_path / SECTION).is_file() and (tmp_path / EXAMPLES).is_file()
    assert [name for name, _ in main["columns"]][:3] == ["set", "part", "examples"]
    assert [len(main["rows"]), len(examples["rows"])] == [2, 1]
    assert "exact copy of t1, t4, t7" in str(examples["rows"])
    clean = contamination([row("t", "x")], {"set": [row("e", "y")]})
    write_sections(clean, tmp_path)
    assert not (tmp_path / EXAMPLES).exists()  # of an earlier report


def run_of(**data: Any) -> Any:
    settings = SimpleNamespace(evaluation=SimpleNamespace(judge_sets=[]), data=SimpleNamespace(eval_split="test"))
    return SimpleNamespace(
        data=SimpleNamespace(**{"held_out": [], "prompts": [], "records": {}, **data}), config=settings
    )


def test_a_run_is_compared_with_its_held_out_examples_and_judge_sets(tmp_path: Path) -> None:
    records = pairs(load_examples("everyday", split="train").examples)[0][:30]
    trainer = run_of(held_out=records[:3], records={record.id: record for record in records[2:]})
    trainer.config.evaluation.judge_sets = ["everyday"]
    found = of_run(trainer)
    assert found is not None and found.train_rows == 28
    assert found.sets["held out"][0].exact == sum(
        any(other.prompt == record.prompt for other in records[2:])
        for record in {json.dumps(one.prompt): one for one in records[:3]}.values()
    )
    assert list(found.sets) == ["held out", "everyday"]
    assert of_run(run_of(prompts=[records[0].prompt])).sets["held out"][0].part == "prompt"  # type: ignore[union-attr]
    assert of_run(run_of()) is None


def test_what_is_wrong_with_it_does_not_end_a_run(tmp_path: Path) -> None:
    trainer = run_of()
    trainer.config.evaluation.judge_sets = [str(tmp_path / "gone.jsonl")]
    file = io.StringIO()
    write_contamination(trainer, tmp_path, Console(file=file, width=200))
    assert "contamination is not in the report: UserError" in file.getvalue()


def put(file: Path, *prompts: str) -> Path:
    file.write_text("".join(json.dumps({"prompt": p, "chosen": "yes", "rejected": "no"}) + "\n" for p in prompts))
    return file


OWN_FORMAT = """
from alignment.data.formats.common import build, prompt_of
NAME, DESCRIPTION = "asked", "asked"


def parse(row):
    return build(row, ("asked",), prompt_of(row["asked"], "asked"), []) if "asked" in row else None
"""


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    train = put(tmp_path / "train.jsonl", "How does a kettle know when to stop?", "Name three birds of the sea, please")
    held = put(tmp_path / "test.jsonl", "how does a  kettle know when to stop?", "Sing.")
    arguments = ("data", "contamination", train, held, "--json", tmp_path / "out.json", "-n", 5)
    assert align(monkeypatch, *arguments) == 0
    assert "test.jsonl:1: exact copy of train.jsonl:1; 100 % of 4 n-grams" in capsys.readouterr().out
    content = json.loads((tmp_path / "out.json").read_text())
    [prompt, answers] = content["sets"][str(held)]
    assert (content["n"], content["train_rows"], prompt["exact"], prompt["over"]) == (5, 2, 1, 1)
    assert (answers["exact"], answers["over"]) == (1, 2)  # "yes" and "no" are short, and whole answers of the training
    assert "gone.jsonl" in refused(monkeypatch, capsys, "data", "contamination", tmp_path / "gone.jsonl", held)
    assert "threshold" in refused(monkeypatch, capsys, "data", "contamination", train, held, "--threshold", 2)
    (tmp_path / "asked.jsonl").write_text('{"asked": "How does a kettle know when to stop?"}\n')
    (tmp_path / "own.py").write_text(OWN_FORMAT)
    both = ("data", "contamination", train, tmp_path / "asked.jsonl")
    assert "no known format" in refused(monkeypatch, capsys, *both)
    assert align(monkeypatch, *both, "--eval-format", tmp_path / "own.py") == 0
    assert "asked.jsonl:1: exact copy of train.jsonl:1" in capsys.readouterr().out
    nowhere = tmp_path / "no" / "out.json"
    assert "no folder" in refused(monkeypatch, capsys, "data", "contamination", train, held, "--json", nowhere)


SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not here")
@pytest.mark.parametrize(
    ("train", "held", "copies"),
    [
        ("prometheus_absolute", "vicuna_bench_questions", 48),
        ("prometheus_absolute", "mt_bench_questions", 56),
        ("tulu_human_eval", "vicuna_bench_questions", 48),
    ],
)
def test_leaks_that_are_known(train: str, held: str, copies: int) -> None:
    rows_of = {
        name: list(example_rows(load_examples(str(SHARED / name), split=split).examples))
        for name, split in ((train, "train"), (held, "test"))
    }
    found = contamination(rows_of[train], {held: rows_of[held]})
    assert found.sets[held][0].exact == copies
    assert found.sets[held][0].over >= copies
