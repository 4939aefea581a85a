"""CUT and its baselines in a trainer: what the loss is given, that they learn and resume, and what is detected."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from alignment.batching.groups import Group
from alignment.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainingConfig
from alignment.errors import UserError
from alignment.launch.entry import main
from alignment.losses.cut import JudgedLogps
from alignment.models.loading import load_model, load_tokenizer
from alignment.trainers.cut import CUTTrainer, satisfactory
from alignment.trainers.judged_detection import detect
from alignment.trainers.loss_settings import build_judged_loss
from tests.trainers.invariance import trainer_of
from tests.trainers.judgments import some_judgments

BASELINES: list[dict[str, Any]] = [
    {"name": "mle"},
    {"name": "mle", "answers": "all"},
    {"name": "hindsight"},
    {"name": "conditional"},
    {"name": "forward_prediction"},
    {"name": "unlikelihood"},
]


def settings(**loss: Any) -> RunConfig:
    return RunConfig(
        method="cut",
        model=ModelConfig(path="tiny", dtype="float32"),
        training=TrainingConfig(learning_rate=5e-3, batch_size=6, max_steps=4, bf16=False, warmup_ratio=0.0),
        evaluation=EvaluationConfig(prompts=0),
        loss=loss or {"name": "cut"},
    )


def alone(trainer: Any, group: Group) -> torch.Tensor:
    """Log-probs of a group's only completion, by the plain model, by itself."""
    sequence = torch.tensor([[*group.prompt, *group.completions[0]]])
    with torch.no_grad():
        logits = trainer.accelerator.unwrap_model(trainer.model)(input_ids=sequence).logits
    logps = logits[0, len(group.prompt) - 1 : -1].log_softmax(-1)
    return logps.gather(-1, torch.tensor(group.completions[0])[:, None]).squeeze(-1)


@pytest.mark.parametrize("variant", ["paper", "authors_code"])
def test_the_loss_is_given_each_token_under_its_three_prompts(variant: str, tmp_path: Path) -> None:
    trainer = trainer_of(CUTTrainer, tmp_path, 10_000, {"name": "cut", "variant": variant})
    trainer.model.eval()
    units, given = trainer.train_units, []
    loss = trainer.loss

    def noted(logps: JudgedLogps, step: torch.Tensor | None) -> Any:
        given.append((logps, step))
        return loss(logps, step)

    trainer.loss = noted
    trainer.statistic = trainer.step_statistics(trainer.model_wrapped, units, training=True)
    trainer.run(trainer.model_wrapped, units)
    ((logps, step),) = given
    kinds = [satisfactory(unit) for unit in units]
    assert logps.satisfactory.tolist() == kinds and 0 < sum(kinds) < len(kinds)
    for number, unit in enumerate(units):
        own = logps.owners == number
        groups = [unit.groups[0], unit.groups[-1], unit.aside[0] if unit.aside else unit.groups[0]]
        assert (len({group.prompt for group in groups}) == 1) == kinds[number]
        for found, group in zip((logps.plain, logps.judged, logps.contrast), groups, strict=True):
            torch.testing.assert_close(found[own], alone(trainer, group), atol=1e-5, rtol=1e-5)
    assert logps.plain.requires_grad and logps.judged.requires_grad and not logps.contrast.requires_grad
    lengths = [len(unit.groups[0].completions[0]) for unit in units]
    second = sum(length for length, good in zip(lengths, kinds, strict=True) if not good)
    if variant == "paper":
        assert step is None
    else:
        assert step is not None and step.tolist() == pytest.approx([sum(lengths) / 6, second / 6])


@pytest.mark.parametrize("kind", [True, False])
@pytest.mark.parametrize("variant", ["paper", "authors_code", "authors_script"])
def test_steps_of_one_kind_alone(variant: str, kind: bool, tmp_path: Path) -> None:
    trainer = trainer_of(CUTTrainer, tmp_path, 60, {"name": "cut", "variant": variant, "margin": math.inf, "weight": 0})
    units = [unit for unit in trainer.train_units if satisfactory(unit) == kind]
    trainer.examples_in_step = len(units)
    loss = trainer.training_step(trainer.model_wrapped, {"units": units})
    plain = torch.stack([-alone(trainer, unit.groups[0]).mean() for unit in units]).mean()
    if kind and variant != "authors_code":  # nothing detected, nothing unlearnt: likelihood
        torch.testing.assert_close(loss, plain, atol=1e-5, rtol=1e-5)
    assert loss.isfinite() and loss > 0
    means, _ = trainer.sums.means(trainer.accelerator)
    assert ("logp_satisfactory" in means) == kind and ("detected" in means) != kind


@pytest.mark.parametrize("loss", [{"name": "cut"}, *BASELINES], ids=lambda loss: "_".join(loss.values()))
def test_it_learns(loss: dict[str, Any], tmp_path: Path) -> None:
    trainer = CUTTrainer(config=settings(**loss), train=some_judgments(), eval=some_judgments(), folder=tmp_path)
    if loss["name"] == "mle":
        assert len(trainer.train_units) == (6 if "answers" in loss else 3)
    start = trainer.evaluate()
    trainer.train()
    end = trainer.evaluate()
    assert end["eval_loss"] < start["eval_loss"]
    if loss["name"] == "unlikelihood":
        gaps = [each["eval_logp_satisfactory"] - each["eval_logp_unsatisfactory"] for each in (start, end)]
        assert gaps[1] > gaps[0]


def test_it_resumes_bit_for_bit(tmp_path: Path) -> None:
    def trainer() -> CUTTrainer:
        config = settings()
        config.training.save_steps, config.training.batch_size = 3, 4
        return CUTTrainer(config=config, train=some_judgments(), eval=some_judgments(), folder=tmp_path)

    def rows() -> list[tuple]:
        lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        return [(row["step"], row["loss"], row.get("detected")) for row in lines if "loss" in row]

    trainer().train()
    kept = rows()
    trainer().resume(tmp_path / "checkpoints" / "checkpoint-3")
    assert rows() == kept and len(kept) == 4


def test_downsampling_is_of_training_alone(tmp_path: Path) -> None:
    config = settings()
    config.judged.downsample = 0.4
    trainer = CUTTrainer(config=config, train=some_judgments(), eval=some_judgments(), folder=tmp_path)
    assert [satisfactory(unit) for unit in trainer.train_units].count(True) == 1  # int(0.4 * 3)
    assert len(trainer.eval_units) == 6
    assert trainer.data.counts["train"]["left_out_satisfactory beyond the ratio"] == 2


def test_scores_stand_in_for_verdicts_where_it_is_said(tmp_path: Path) -> None:
    def row(number: int, score: float) -> dict[str, Any]:
        answer = {"messages": [{"role": "assistant", "content": f"Yes, {number}."}], "score": score}
        answer["judgments"] = [{"text": "Too short."}]
        return {"prompt": [{"role": "user", "content": f"Is it {number}?"}], "responses": [answer]}

    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row(n, float(n))) + "\n" for n in range(4, 10)))
    config = settings()
    config.data.eval_fraction = 0.0
    with pytest.raises(UserError, match="no judged answer to train on"):
        CUTTrainer(config=config, train=str(tmp_path / "rows.jsonl"), folder=tmp_path / "none")
    config.judged.satisfied_from = 7.0
    trainer = CUTTrainer(config=config, train=str(tmp_path / "rows.jsonl"), folder=tmp_path / "some")
    assert [satisfactory(unit) for unit in trainer.train_units] == [False] * 3 + [True] * 3


@pytest.mark.parametrize("loss", [{"name": "cut"}, {"name": "cut", "variant": "authors_code"}])
def test_detected_log_ratios_by_the_plain_model(loss: dict[str, Any], tmp_path: Path) -> None:
    trainer = CUTTrainer(config=settings(**loss), train=some_judgments(), folder=tmp_path)
    trainer.model.eval()
    config = replace(trainer.config, training=TrainingConfig(token_budget=60))  # several batches
    found = detect(trainer.model, trainer.tokenizer, some_judgments(), config)
    bad = {unit.id: unit for unit in trainer.train_units if not satisfactory(unit)}
    assert [each.record.id for each in found] == list(bad)
    for each in found:
        unit = bad[each.record.id]
        other = unit.aside[0] if loss.get("variant") is None else unit.groups[0]
        expected = alone(trainer, unit.groups[1]) - alone(trainer, other)
        assert each.log_ratio == pytest.approx(expected.tolist(), abs=1e-5)
        assert each.ids == unit.groups[0].completions[0]
        assert each.tokens(1.2) == [ratio > math.log(1.2) for ratio in each.log_ratio]
        assert not any(each.tokens(math.inf))


def test_detection_needs_no_trainer(tmp_path: Path) -> None:
    model, tokenizer = load_model(ModelConfig(path="tiny", dtype="float32")), load_tokenizer(ModelConfig(path="tiny"))
    model.train()
    found = detect(model, tokenizer, some_judgments(), RunConfig(data=DataConfig(max_prompt_length=60)))
    assert found and model.training and all(len(each.ids) == len(each.log_ratio) for each in found)
    assert detect(model, tokenizer, [record for record in some_judgments() if record.satisfactory], RunConfig()) == []


MISTAKES = [
    ({"name": "sigmoid"}, "loss.name=sigmoid: judged answers need a loss of their own: cut, unlikelihood, mle"),
    ({"name": "cut", "margin": 0.9}, "loss.margin=0.9: must be at least 1"),
    ({"name": "cut", "weight": -1}, "loss.weight=-1: must be at least 0, and finite"),
    ({"name": "cut", "variant": "code"}, "loss.variant=code: did you mean authors_code?"),
    (
        {"name": "cut", "variant": "authors_code", "exponent": 1.0},
        "loss.exponent: the authors' code has no such weight",
    ),
    ({"name": "cut", "exponent": "much"}, "loss.exponent=much: a number is needed"),
    ({"name": "cut", "gamma": 1}, "loss.gamma: the loss 'cut' takes no such setting"),
    ({"name": "mle", "answers": "some"}, "loss.answers=some"),
    ({"name": "hindsight", "weight": 1}, "loss.weight: the loss 'hindsight' takes no such setting"),
]


@pytest.mark.parametrize(("loss", "says"), MISTAKES, ids=[says for _, says in MISTAKES])
def test_mistakes(loss: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        build_judged_loss(loss)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert build_judged_loss({"name": "cut", "margin": math.inf, "weight": 0})[1] == "cut"


def test_the_recipe_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "run"
    few = ["training.max_steps=3", "training.learning_rate=1e-3", "data.eval_limit=24", "evaluation.prompts=4"]
    assert main(["recipe=cut", "model=tiny", *few, "evaluation.max_new_tokens=8", f"output_dir={run}"]) == 0
    summary = json.loads((run / "summary.json").read_text())
    found = summary["judged"]
    assert set(found) == {"satisfactory", "unsatisfactory", "wrong", "right", "right_first", "margin"}
    for entry in found.values():
        assert entry["difference"] == pytest.approx(entry["after"] - entry["before"])
        assert entry["ci95"][0] <= entry["difference"] <= entry["ci95"][1]
    assert found["satisfactory"]["answers"] + found["unsatisfactory"]["answers"] == found["margin"]["answers"] == 24
    assert found["wrong"]["answers"] == found["right"]["answers"] == found["unsatisfactory"]["answers"]
    assert 0 <= found["right_first"]["before"] <= 1 and found["wrong"]["before"] < 0
    gap = found["satisfactory"]["before"] - found["unsatisfactory"]["before"]
    assert found["margin"]["before"] == pytest.approx(gap)
    assert {"length", "kl", "fluency"} <= summary.keys()
    assert "known wrong tokens" in capsys.readouterr().out and "known wrong tokens" in (run / "report.html").read_text()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert "detected" in rows[0] and "eval_logp_satisfactory" in rows[-1]
    marked = [json.loads(line) for line in (run / "highlights.jsonl").read_text().splitlines()]
    assert len(marked) == 20 and marked[0]["margin"] == 1.2 and "tokens detected" in (run / "report.html").read_text()

    # Asked in plain text, as a model without a chat template is, and with a file that has no place for the judgment.
    raw = ["recipe=cut", "model=tiny", "data.template=raw", "training.max_steps=1", "data.limit=8", "data.eval_limit=4"]
    raw += ["evaluation.prompts=1", "evaluation.max_new_tokens=4"]
    assert main([*raw, "judged.template=alpaca", f"output_dir={tmp_path / 'raw'}"]) == 0
    (tmp_path / "mine.yaml").write_text('plain: "{instruction}"\njudged: "{instruction}"\npositive: "Fine."\n')
    capsys.readouterr()
    assert main([*raw, f"judged.template={tmp_path / 'mine.yaml'}", f"output_dir={tmp_path / 'mine'}"]) == 2
    error = capsys.readouterr().err
    assert "judged must have the slot {judgment}" in error and "Traceback" not in error
