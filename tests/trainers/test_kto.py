"""KTO and BCO: the statistic of a step by hand, foreign answers, and that they learn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from alignment.batching.groups import Group
from alignment.batching.units import _foreign
from alignment.config import EvaluationConfig, ModelConfig, RunConfig, TrainingConfig
from alignment.data.views import Pair, Unpaired
from alignment.errors import UserError
from alignment.trainers.kto import KTOTrainer, RewardShift
from tests.trainers.invariance import trainer_of
from tests.trainers.pairs import some_pairs


def answers() -> list[Unpaired]:
    def of(pair: Pair, kind: str) -> Unpaired:
        return Unpaired(f"{pair.id}:{kind}", pair.prompt, getattr(pair, kind), kind == "chosen")

    return [of(pair, kind) for pair in some_pairs() for kind in ("chosen", "rejected")]


def settings(**loss) -> RunConfig:
    return RunConfig(
        method="kto",
        model=ModelConfig(path="tiny", dtype="float32"),
        training=TrainingConfig(learning_rate=5e-3, batch_size=6, max_steps=12, bf16=False, warmup_ratio=0.0),
        evaluation=EvaluationConfig(prompts=0),
        loss=loss or {"name": "kto"},
    )


def log_ratio(trainer, group: Group) -> torch.Tensor:
    """log pi/ref of a group's only completion, by the plain model, alone."""
    sequence = torch.tensor([[*group.prompt, *group.completions[0]]])
    sums = []
    for adapters_on in (True, False):
        model = trainer.accelerator.unwrap_model(trainer.model)
        with torch.no_grad():
            if adapters_on:
                logits = model(input_ids=sequence).logits
            else:
                with model.disable_adapter():
                    logits = model(input_ids=sequence).logits
        logps = logits[0, len(group.prompt) - 1 : -1].log_softmax(-1)
        sums.append(logps.gather(-1, torch.tensor(group.completions[0])[:, None]).sum())
    return sums[0] - sums[1]


def test_the_kl_is_the_mean_over_the_mismatched_answers_of_the_step(tmp_path: Path) -> None:
    trainer = trainer_of(KTOTrainer, tmp_path, 100, {"name": "kto"})
    trainer.model.eval()
    units = trainer.train_units[:5]
    expected = torch.stack([log_ratio(trainer, unit.aside[0]) for unit in units]).mean()
    assert expected.abs() > 0.01
    found = trainer.step_statistics(trainer.model_wrapped, units, training=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_shift_is_the_mean_of_both_kinds_over_all_steps(tmp_path: Path) -> None:
    trainer = trainer_of(KTOTrainer, tmp_path, 100, {"name": "bco", "beta": 0.5})
    trainer.model.eval()
    steps = [trainer.train_units[:3], trainer.train_units[3:8]]
    found = [trainer.step_statistics(trainer.model_wrapped, units, training=True) for units in steps]
    ratios = {unit.id: log_ratio(trainer, unit.groups[0]) for units in steps for unit in units}

    def mean(kind: str, seen: int) -> torch.Tensor:
        return torch.stack([r for name, r in list(ratios.items())[:seen] if name.endswith(kind)]).mean()

    for value, seen in zip(found, (3, 8), strict=True):
        expected = 0.5 * (mean("chosen", seen) + mean("rejected", seen)) / 2
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)
    kept = [list(row) for row in trainer.shift.sums]
    trainer.step_statistics(trainer.model_wrapped, steps[0], training=False)
    assert trainer.shift.sums == kept  # an evaluation leaves no trace


def test_the_shift_takes_one_pass_over_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(KTOTrainer, tmp_path, 10_000, {"name": "bco", "beta": 0.5})
    passes = []
    run = trainer.run

    def counted(model, units, *rest):
        passes.append(len(units))
        return run(model, units, *rest)

    monkeypatch.setattr(trainer, "run", counted)
    trainer.step_statistics(trainer.model_wrapped, trainer.train_units[:6], training=True)
    assert passes == [6]  # three of either kind, together


def test_shift_by_hand() -> None:
    shift = RewardShift(beta=0.5)
    assert float(shift.seen(torch.tensor([[6.0, 3.0], [0.0, 0.0]]), True)) == pytest.approx(0.5 * 2 / 2)
    assert float(shift.seen(torch.tensor([[2.0, 1.0], [-8.0, 2.0]]), True)) == pytest.approx(0.5 * (2 - 4) / 2)


def test_a_foreign_answer_is_of_another_prompt_and_always_the_same() -> None:
    groups = [Group((1 + number // 3,), ((10 + number,),)) for number in range(9)]  # three prompts, three answers each
    foreign = _foreign(groups, seed=4)
    assert foreign == _foreign(groups, seed=4) != _foreign(groups, seed=5)
    assert all(other.prompt != group.prompt for group, other in zip(groups, foreign, strict=True))
    alike = [Group((1,), ((10 + number,),)) for number in range(3)]
    assert all(other != group for group, other in zip(alike, _foreign(alike, 0), strict=True))
    assert _foreign(alike[:1], 0) == alike[:1]


@pytest.mark.parametrize("name", ["kto", "bco"])
def test_it_learns_and_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    def rows(folder: Path) -> list[tuple]:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [(row["step"], row["loss"], row["margin"]) for row in lines if "loss" in row]

    def trainer_in(folder: Path) -> KTOTrainer:
        config = settings(name=name)
        config.training.save_steps, config.training.save_total_limit = 5, 9
        return KTOTrainer(config=config, train=answers(), eval=answers(), folder=folder)

    whole = trainer_in(tmp_path / "whole")
    start = whole.evaluate()
    whole.train()
    end = whole.evaluate()
    assert end["eval_loss"] < start["eval_loss"] and end["eval_accuracy"] > start["eval_accuracy"]

    checkpoint = tmp_path / "whole" / "checkpoints" / "checkpoint-5"
    assert (checkpoint / "reward_shift.json").exists() == (name == "bco")  # KTO carries nothing from step to step
    again = trainer_in(tmp_path / "whole")
    kept = rows(tmp_path / "whole")
    again.resume(checkpoint)
    assert rows(tmp_path / "whole") == kept and len(kept) == 12


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"loss.name=sigmoid: single answers need a loss of their own: kto, bco"):
        KTOTrainer(config=settings(name="sigmoid"), train=answers(), eval=answers(), folder=tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a?", "completion": "b"}\n')
    with pytest.raises(UserError, match=r"rows.jsonl"):
        KTOTrainer(config=settings(), train=str(tmp_path / "rows.jsonl"), folder=tmp_path)
