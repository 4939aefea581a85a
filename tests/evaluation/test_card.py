from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from alignment.errors import UserError
from alignment.evaluation.card import write_model_card

from .fake_run import config, make_run, summary


def card(run: Path, **settings: Any) -> ModelCard:
    """The card of `run`, its configuration changed by group, read back as a hub would."""
    changed = config(0)
    for group, values in settings.items():
        changed[group] = {**changed[group], **values} if isinstance(values, dict) else values
    (run / "config.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")
    return ModelCard.load(write_model_card(run))


def test_the_front_matter_names_what_is_known(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert card(run).data.to_dict() == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["alignment-toolkit", "preference-alignment", "dpo"],
    }


def test_an_adapter_is_for_peft(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "model" / "adapter_config.json").write_text("{}")
    data = card(run).data.to_dict()
    assert data["library_name"] == "peft"
    assert "lora" in data["tags"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("org/model-1.5", "org/model-1.5"),
        ("tiny", None),
        ("/home/someone/private/model", None),
        ("./models/mine", None),
        ("weights.gguf", None),
        (None, None),
    ],
)
def test_only_hub_ids_are_base_models(tmp_path: Path, path: str | None, expected: str | None) -> None:
    found = card(make_run(tmp_path / "run"), model={"path": path})
    assert found.data.to_dict().get("base_model") == expected
    assert "/home/someone" not in found.content


def test_hub_data_sets_are_named_and_local_files_are_not_exposed(tmp_path: Path) -> None:
    found = card(
        make_run(tmp_path / "run"), data={"path": {"org/set": 1, "/home/someone/mine.jsonl": 2, "everyday": 1}}
    )
    assert found.data.to_dict()["datasets"] == ["org/set"]
    assert "(mine.jsonl, everyday, org/set)" in found.text
    assert "/home/someone" not in found.content


def test_the_card_tells_the_numbers_the_command_and_the_limits(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", overrides=["recipe=dpo", "seed=0", "loss.beta=0.2"])
    text = card(run).text
    assert "| -0.12 | 0.43 | +0.55 | \\[+0.30, +0.80\\] |" in text
    assert "accelerate launch train.py recipe=dpo seed=0 loss.beta=0.2" in text
    assert "| training.learning\\_rate | 4e-05 |" in text
    assert "| train pairs | 240 |" in text
    assert "| torch | 2.13.0 |" in text
    assert "## Limits" in text
    assert "drifted" not in text


def test_drift_is_a_limit(tmp_path: Path) -> None:
    text = card(make_run(tmp_path / "run", fluency={"before": -1.0, "after": -3.0})).text
    assert "Its answers drifted from good English" in text


def test_hostile_names_break_neither_front_matter_nor_table(tmp_path: Path) -> None:
    name = "a\n---\nb | <script> [x](y) `c`"
    score = {**summary(0, 1)["score"], "name": name}
    run = make_run(tmp_path / "run", method=name, model=name, score=score, overrides=["a='```\nx"])
    found = card(run, description=name)
    assert len(found.data.to_dict()["tags"]) == 3
    assert found.text.lstrip().startswith("# a --- b")
    assert "<script>" not in found.text.replace("\\<script\\>", "")
    rows = [line for line in found.text.splitlines() if line.startswith("| score: ")]
    assert len(rows) == 1
    assert rows[0].replace("\\|", "").count("|") == 6
    assert found.text.count("```") == 2


def test_a_run_of_which_little_is_known_has_a_card(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"steps": 3}))
    with pytest.raises(UserError, match="no model to write a card for"):
        write_model_card(tmp_path)
    (tmp_path / "model").mkdir()
    assert "No counts were recorded." in write_model_card(tmp_path).read_text()


@pytest.mark.parametrize(
    ("method", "pipeline", "title", "trained_on", "limit"),
    [
        (
            "reward",
            "text-classification",
            "a reward model: it scores",
            "preferences (everyday)",
            "policy that is trained",
        ),
        ("preference_model", "text-classification", "a preference model:", "preferences (everyday)", "which are true"),
        ("sft", "text-generation", "fine-tuned with SFT", "answers to imitate (everyday)", "Trained to imitate"),
        (
            "p3o",
            "text-generation",
            "aligned with P3O",
            "prompts (everyday), judged by mine.py:nice, with",
            "(mine.py:nice)",
        ),
        ("policy_gradient", "text-generation", "aligned with RLOO", "its own answers", "please one judge"),
        ("nash_md", "text-generation", "aligned with Nash-MD", "its own answers", "please one judge"),
        ("pit_gap", "text-classification", "a gap reward model:", "preferences (everyday)", "which are true"),
        ("pit_sft", "text-generation", "an improver of given", "better answers to imitate", "Trained to imitate"),
        ("pit", "text-generation", "aligned with PIT", "its own answers", "please one judge"),
        ("kto", "text-generation", "aligned with KTO", "trained on preferences (everyday)", "which are true"),
    ],
)
def test_the_card_says_what_the_model_is(
    tmp_path: Path, method: str, pipeline: str, title: str, trained_on: str, limit: str
) -> None:
    run = make_run(tmp_path / "run", method=method)
    feedback, rollout = {"name": "/home/someone/mine.py:nice"}, {"prompts": 16, "completions": 2}
    loss = {"name": "rloo" if method == "policy_gradient" else method}
    (run / "config.yaml").write_text(
        yaml.safe_dump({**config(0), "method": method, "feedback": feedback, "rollout": rollout, "loss": loss})
    )
    found = ModelCard.load(write_model_card(run))
    assert found.data.to_dict()["pipeline_tag"] == pipeline
    assert title in found.text and trained_on in found.text and limit in found.text
    assert "/home/someone" not in found.content
    assert ("rollout.prompts" in found.text) == (method in ("p3o", "policy_gradient", "nash_md", "pit"))
