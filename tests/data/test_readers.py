"""load_examples as a whole: mixed files, the report, bad rows, limits and mixtures."""

from __future__ import annotations

import errno
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from alignment.data.examples import Examples
from alignment.data.readers import NoUsableRows, load_examples
from alignment.errors import UserError

GOOD = {"prompt": "Why?", "chosen": "Yes.", "rejected": "No."}


def write(file: Path, rows: list[Any]) -> Path:
    file.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return file


def numbered(file: Path, count: int) -> Path:
    return write(file, [{**GOOD, "prompt": f"{file.stem} {number}"} for number in range(count)])


def prompts(examples: Examples) -> list[str]:
    return [example.prompt[-1]["content"] for example in examples]


def test_a_file_that_mixes_formats(tmp_path: Path) -> None:
    hh = {"chosen": "\n\nHuman: Hi\n\nAssistant: Yes.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."}
    kto = {"prompt": "How?", "completion": "So.", "label": True}
    file = write(tmp_path / "mixed.jsonl", [kto, GOOD, "{broken", hh, {"what": "ever"}, {**GOOD, "rejected": "Yes."}])
    report = load_examples(file).report
    assert report.formats == {"unpaired": 1, "standard": 1, "hh": 1}
    assert (report.rows_read, report.kept, report.examples) == (6, 3, 3)
    assert [(bad.row, bad.kind) for bad in report.skipped] == [(3, "other"), (5, "unknown format"), (6, "identical")]
    assert str(report.skipped[2]) == f"{file}:6: both answers are the same text"
    assert prompts(load_examples(file).examples) == ["How?", "Why?", "Hi"]  # whichever row comes first


def test_place_and_id_of_an_example(tmp_path: Path) -> None:
    file = write(tmp_path / "pairs.jsonl", ["", GOOD, GOOD])
    first, second = load_examples(file).examples
    assert (first.meta["source"], first.meta["row"], second.meta["row"]) == (str(file), 2, 3)
    assert first.id == second.id
    assert len(first.id) == 12


def test_summary_is_one_line_that_says_it_all(tmp_path: Path) -> None:
    file = write(
        tmp_path / "pairs.jsonl", [GOOD, {**GOOD, "chosen": ""}, {**GOOD, "chosen": "No."}, {**GOOD, "chosen": ""}]
    )
    assert load_examples(file).report.summary() == (
        "4 rows read, 1 kept, 3 skipped | formats: standard 1 | "
        "skipped: 2 × chosen is empty; 1 × both answers are the same text"
    )


def test_stop_at_the_first_bad_row(tmp_path: Path) -> None:
    file = write(tmp_path / "pairs.jsonl", [GOOD, {**GOOD, "chosen": ""}, "{"])
    with pytest.raises(
        UserError, match=r"pairs.jsonl:2: chosen is empty \(data.on_bad_row=skip leaves such rows out\)"
    ):
        load_examples(file, on_bad_row="stop")


def test_no_row_is_usable(tmp_path: Path) -> None:
    file = write(
        tmp_path / "pairs.jsonl", [{**GOOD, "chosen": ""}, {**GOOD, "rejected": "Yes."}, {**GOOD, "chosen": ""}]
    )
    with pytest.raises(NoUsableRows, match="none of 3 rows can be used; 2 × chosen is empty") as caught:
        load_examples(file)
    assert len(caught.value.report.skipped) == 3


def test_unknown_format_says_what_was_seen_and_what_is_known(tmp_path: Path) -> None:
    file = write(tmp_path / "pairs.jsonl", ["", {"text": "a", "label": "pos"}])
    with pytest.raises(UserError, match=r"row 2 .* it has the fields text, label.\nKnown formats: example, hh, ultraf"):
        load_examples(file)


def test_named_format(tmp_path: Path) -> None:
    file = write(tmp_path / "pairs.jsonl", [GOOD, {"prompt": "a", "completion": "b"}])
    report = load_examples(file, format="standard").report
    assert [bad.reason for bad in report.skipped] == [
        "not in the format 'standard': it has the fields prompt, completion"
    ]
    with pytest.raises(UserError, match="unknown data format 'standrad': did you mean standard"):
        load_examples(file, format="standrad")


def test_wrong_settings(tmp_path: Path) -> None:
    file = write(tmp_path / "pairs.jsonl", [GOOD])
    with pytest.raises(UserError, match="unknown on_bad_row 'ignore'"):
        load_examples(file, on_bad_row="ignore")
    with pytest.raises(UserError, match="limit=0"):
        load_examples(file, limit=0)
    with pytest.raises(UserError, match="list of paths is empty"):
        load_examples([])
    with pytest.raises(UserError, match="mixture is empty"):
        load_examples({})


def test_blank_lines_alone_are_no_rows(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no rows in it"):
        load_examples(write(tmp_path / "pairs.jsonl", ["", ""]))


def test_half_a_surrogate_pair_is_a_bad_row(tmp_path: Path) -> None:
    answer = '{"prompt": "a", "chosen": "\\ud83d", "rejected": "c"}'
    judgment = '{"instruction": "a", "output": "b", "judgment": "\\ud83d"}'
    field = '{"prompt": "a", "chosen": "b", "rejected": "c", "note": "\\ud83d"}'  # no text that anyone trains on
    loaded = load_examples(write(tmp_path / "pairs.jsonl", [GOOD, answer, judgment, field]))
    reason = "holds half a surrogate pair, which is no text"
    assert [(bad.row, bad.reason) for bad in loaded.report.skipped] == [(2, reason), (3, reason)]
    assert loaded.examples[1].meta["fields"] == {"note": "\ud83d"}


def test_text_is_kept_to_the_character(tmp_path: Path) -> None:
    row = {"prompt": " a\u2028b\r\n", "chosen": "\tc\x85 ", "rejected": " d\u2029\u0000"}
    example = load_examples(write(tmp_path / "pairs.jsonl", [row])).examples[0]
    assert example.prompt[0]["content"] == row["prompt"]
    assert [response.text for response in example.responses] == [row["chosen"], row["rejected"]]


def test_limit_is_a_seeded_sample_in_order(tmp_path: Path) -> None:
    file = numbered(tmp_path / "a.jsonl", 50)
    taken = prompts(load_examples(file, limit=10, seed=1).examples)
    assert len(taken) == 10
    assert taken == sorted(taken, key=lambda prompt: int(prompt.split()[1]))
    assert taken == prompts(load_examples(file, limit=10, seed=1).examples)
    assert taken != prompts(load_examples(file, limit=10, seed=2).examples)
    assert load_examples(file, limit=10).report.sampled_out == 40
    assert len(load_examples(file, limit=90).examples) == 50


def test_list_of_paths_is_read_one_after_the_other(tmp_path: Path) -> None:
    files = [str(numbered(tmp_path / f"{name}.jsonl", 2)) for name in "ba"]
    assert prompts(load_examples(files).examples) == ["b 0", "b 1", "a 0", "a 1"]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((1, 1), {"a": 10, "b": 10}),  # b has more, and its share would be too large
        ((3, 1), {"a": 10, "b": 3}),
        ((1, 3), {"a": 10, "b": 30}),
        ((0.1, 0.9), {"a": 4, "b": 40}),  # here b runs out first
        ((1, 0.001), {"a": 10, "b": 1}),  # no source vanishes
    ],
)
def test_mixture_has_the_shares_of_its_weights(
    weights: tuple[float, float], expected: dict[str, int], tmp_path: Path
) -> None:
    paths = numbered(tmp_path / "a.jsonl", 10), numbered(tmp_path / "b.jsonl", 40)
    mixture = {str(path): weight for path, weight in zip(paths, weights, strict=True)}
    loaded = load_examples(OmegaConf.create({"path": mixture}).path, seed=3)
    taken = prompts(loaded.examples)
    assert Counter(prompt.split()[0] for prompt in taken) == expected
    assert len(set(taken)) == len(taken)  # without replacement
    assert loaded.report.sampled_out == 50 - len(taken)
    assert loaded.report.rows_read == 50
    assert taken == prompts(load_examples(mixture, seed=3).examples)
    assert taken != prompts(load_examples(mixture, seed=4).examples)


def test_mixture_is_interleaved(tmp_path: Path) -> None:
    mixture = {str(numbered(tmp_path / f"{name}.jsonl", 20)): 1 for name in "ab"}
    order = [prompt[0] for prompt in prompts(load_examples(mixture).examples)]
    assert sorted(order) != order != sorted(order, reverse=True)


@pytest.mark.parametrize("weight", [0, -1, "half", True, float("inf"), float("nan")])
def test_weight_that_is_none(weight: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be a number above 0"):
        load_examples({str(numbered(tmp_path / "a.jsonl", 2)): weight})


def test_full_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("datasets.arrow_writer.ArrowWriter.finalize", full)
    with pytest.raises(UserError, match="No space left on device; set TMPDIR"):
        load_examples(write(tmp_path / "pairs.jsonl", [GOOD]))
