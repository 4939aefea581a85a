"""Every folder of the project's real data: rows read, kept, left out and why, against a table that was checked by eye.

To write the table anew after a wanted change: python -m tests.data.test_shared_data (and read the difference).
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from alignment.data.judged_view import judged
from alignment.data.readers import NoUsableRows, load_examples
from alignment.data.views import pairs, unpaired

ROOT = Path(__file__).parents[3] / "shared" / "data"
TABLE = Path(__file__).with_name("shared_data_expected.json")
EXPECTED: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.is_file() else {}

pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason="the project's real data is not beside the checkout")


def folders() -> list[str]:
    return sorted(folder.name for folder in ROOT.iterdir() if any(folder.glob("*.jsonl*"))) if ROOT.is_dir() else []


def found_in(folder: str) -> dict[str, Any]:
    """What the loader makes of each split of a folder."""
    found = {}
    for split in ("train", "test"):
        if not list((ROOT / folder).glob(f"{split}.jsonl*")):
            continue
        try:
            loaded = load_examples(ROOT / folder, split=split)
        except NoUsableRows as error:
            found[split] = _counts(error.report)
            continue
        two, left_out = pairs(loaded.examples)
        found[split] = {
            **_counts(loaded.report),
            "pairs": len(two),
            "left out of the pairs": dict(sorted(left_out.items())),
            "labelled answers": len(unpaired(loaded.examples, from_pairs=False)[0]),
            "judged answers": _judged(loaded.examples),
        }
    return found


def _judged(examples: Any, satisfied_from: float | None = None) -> dict[str, int]:
    records, counts = judged(examples, satisfied_from=satisfied_from)
    satisfactory = sum(record.satisfactory for record in records)
    return {"records": len(records), "satisfactory": satisfactory, **dict(sorted(counts.items()))}


def _counts(report: Any) -> dict[str, Any]:
    return {
        "rows": report.rows_read,
        "kept": report.kept,
        "examples": report.examples,
        "formats": dict(sorted(report.formats.items())),
        "skipped": dict(sorted(report.reasons.items())),
    }


def test_the_table_names_every_folder() -> None:
    assert sorted(EXPECTED) == folders()


@pytest.mark.parametrize("folder", sorted(EXPECTED))
def test_folder_is_read_as_the_table_says(folder: str) -> None:
    if not (ROOT / folder).is_dir():
        pytest.skip(f"{folder} is not there")
    found = found_in(folder)
    assert found == EXPECTED[folder]
    for counts in found.values():
        assert counts["kept"] + sum(counts["skipped"].values()) == counts["rows"]


def test_dialogues_that_part_early_keep_all_their_turns() -> None:
    loaded = load_examples(ROOT / "hh_rlhf_harmless")
    several = [e for e in loaded.examples if any(len(response.messages) > 1 for response in e.responses)]
    assert [example.meta["row"] for example in several] == [337, 566, 1012, 1334, 1502]
    assert all(turn["role"] == "assistant" for e in several for response in e.responses for turn in response.messages)
    assert several[0].responses[0].messages[0]["content"].startswith("Human:")  # a mark inside a turn starts no turn


def test_leading_space_of_a_completion_is_kept() -> None:
    loaded = load_examples(ROOT / "persona_evals", split="test")
    assert Counter(r.text for e in loaded.examples for r in e.responses) == {" Yes": 1000, " No": 1000}


def test_system_text_reaches_the_prompt() -> None:
    loaded = load_examples(ROOT / "configurable_system_prompt")
    assert all([turn["role"] for turn in e.prompt] == ["system", "user"] for e in loaded.examples)


def test_three_annotators_become_one_pair_with_their_mean() -> None:
    found, _ = pairs(load_examples(ROOT / "pandalm").examples)
    assert {round(pair.p_chosen, 3) for pair in found} <= {1.0, round(5 / 6, 3), round(2 / 3, 3)}


def test_judgments_with_scores_but_no_verdict_are_satisfied_from_a_threshold() -> None:
    # 416 rows, three judgments by GPT-4 each; the score is their mean on a scale of 1 to 5
    examples = load_examples(ROOT / "prometheus_absolute").examples
    assert _judged(examples) == {"records": 0, "satisfactory": 0, "no verdict": 1248}
    assert _judged(examples, satisfied_from=4) == {"records": 1248, "satisfactory": 840}
    assert _judged(examples, satisfied_from=6) == {"records": 1248, "satisfactory": 0}


def test_judgments_of_the_cut_authors() -> None:
    records = [
        r for split in ("train", "test") for r in judged(load_examples(ROOT / "cut_judgments", split=split).examples)[0]
    ]
    wrong = [record for record in records if not record.satisfactory]
    assert (len(records), len(wrong)) == (4222 - 42, 1005 - 9)  # 42 × $ERROR$; 9 × "The response is perfect."
    assert all(record.judgment for record in wrong)
    assert sum(record.judgment is None for record in records) == 3175


def test_tree_turns_alternate() -> None:
    for example in load_examples(ROOT / "oasst_trees").examples:
        assert [turn["role"] for turn in example.prompt] == (["user", "assistant"] * 9)[: len(example.prompt)]
        assert len(example.prompt) % 2 == 1


@pytest.mark.parametrize(
    ("file", "rows", "name"),
    [
        ("sparse_feedback_rankings/raw_sample_noheader.csv", 25, "alpaca"),
        ("sparse_feedback_ratings/raw_sample_noheader.csv", 25, "ratings"),
        ("xstest_completions/raw_sample.csv", 25, "labelled_answers"),
        ("xstest_prompts/raw_sample.csv", 25, "prompt_only"),
    ],
)
def test_raw_csv_is_read_like_the_json_lines(file: str, rows: int, name: str) -> None:
    report = load_examples(ROOT / file).report
    assert (report.rows_read, set(report.formats)) == (rows, {name})


if __name__ == "__main__":
    table = {folder: found_in(folder) for folder in folders()}
    TABLE.write_text(json.dumps(table, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
