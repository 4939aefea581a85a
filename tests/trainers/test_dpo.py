"""The DPO trainer on `tiny`: it starts at log 2, learns, stops on NaN, and takes one's own loss."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from alignment.config import EvaluationConfig, ModelConfig, PeftConfig, ReferenceConfig, RunConfig, TrainingConfig
from alignment.errors import Interrupted, UserError
from alignment.losses.pairwise import LossOutput, PairLogps, pair_metrics
from alignment.trainers.dpo import DPOTrainer
from alignment.trainers.inputs import split_by_prompt
from alignment.trainers.termination import TERMINATION
from tests.trainers.pairs import some_pairs


def settings(**training) -> RunConfig:
    fields = dict(learning_rate=5e-3, batch_size=4, max_steps=6, bf16=False, warmup_ratio=0.0) | training
    return RunConfig(
        model=ModelConfig(path="tiny", dtype="float32"),
        training=TrainingConfig(**fields),
        evaluation=EvaluationConfig(prompts=0),
    )


def rows(folder: Path, key: str) -> list[float]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row[key] for row in found if key in row]


def test_starts_at_log_two_with_nothing_ahead_and_learns(tmp_path: Path) -> None:
    trainer = DPOTrainer(config=settings(max_steps=12), train=some_pairs(), eval=some_pairs(), folder=tmp_path)
    start = trainer.evaluate()
    assert start["eval_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert start["eval_accuracy"] == 0 and start["eval_margin"] == 0
    trainer.train()
    end = trainer.evaluate()
    assert end["eval_accuracy"] == 1.0 and end["eval_loss"] < 0.6
    losses = rows(tmp_path, "loss")
    assert len(losses) == 12 and losses[0] == pytest.approx(math.log(2), abs=1e-6) and losses[-1] < losses[0]
    assert rows(tmp_path, "epoch")[-1] == pytest.approx(12 * 4 / 6)


def test_full_weights_with_a_frozen_copy(tmp_path: Path) -> None:
    config = settings()
    config.peft = PeftConfig(method="none")
    trainer = DPOTrainer(config=config, train=some_pairs(), eval=some_pairs(), folder=tmp_path)
    before = {name: value.clone() for name, value in trainer.reference.model.state_dict().items()}
    trainer.train()
    assert all(torch.equal(before[name], value) for name, value in trainer.reference.model.state_dict().items())
    assert trainer.evaluate()["eval_accuracy"] == 1.0


def test_reference_precomputed_equals_scored_in_the_step(tmp_path: Path) -> None:
    losses = []
    for when in ("step", "precompute"):
        config = settings()
        config.reference = ReferenceConfig(when=when, cache=False)
        trainer = DPOTrainer(config=config, train=some_pairs(), eval=some_pairs(), folder=tmp_path / when)
        trainer.train()
        losses.append(rows(tmp_path / when, "loss"))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_ones_own_loss(tmp_path: Path) -> None:
    def hinge(pairs: PairLogps) -> LossOutput:
        chosen, rejected = 0.1 * (pairs.chosen - pairs.ref_chosen), 0.1 * (pairs.rejected - pairs.ref_rejected)
        return LossOutput(F.relu(1 - (chosen - rejected)), pair_metrics(chosen, rejected, pairs))

    trainer = DPOTrainer(config=settings(), train=some_pairs(), eval=some_pairs(), loss=hinge, folder=tmp_path)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(1.0, abs=1e-6)
    trainer.train()
    assert rows(tmp_path, "loss")[-1] < 1.0


def test_a_nan_loss_stops_before_the_update_and_names_the_examples(tmp_path: Path) -> None:
    def broken(pairs: PairLogps) -> LossOutput:
        values = -(pairs.chosen - pairs.rejected)
        return LossOutput(torch.where(pairs.p_chosen < 0.8, values * math.nan, values), {"margin": values.detach()})

    pairs = [pair if i != 2 else type(pair)(**{**vars(pair), "p_chosen": 0.7}) for i, pair in enumerate(some_pairs())]
    config = settings(batch_size=6, skip_nonfinite=0)
    trainer = DPOTrainer(config=config, train=pairs, eval=pairs, loss=broken, folder=tmp_path)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    with pytest.raises(UserError, match="NaN or infinite at step 1.*nonfinite.json"):
        trainer.train()
    noted = json.loads((tmp_path / "nonfinite.json").read_text())
    assert noted == [{"step": 1, "what": "loss", "examples": ["pair-2"]}]
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))


def test_best_checkpoint_and_early_stopping(tmp_path: Path) -> None:
    # A learning rate of zero never gets better than its first evaluation.
    config = settings(
        learning_rate=1e-12, max_steps=20, eval_steps=2, keep_best=True, early_stopping=2, best_metric="loss"
    )
    trainer = DPOTrainer(config=config, train=some_pairs(), eval=some_pairs(), folder=tmp_path)
    trainer.train()
    assert trainer.state.global_step < 20
    assert trainer.state.best_model_checkpoint is not None
    assert Path(trainer.state.best_model_checkpoint).is_dir()


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    for changes, message in [
        (dict(batch_size=0), "training.batch_size=0"),
        (dict(layout="sharde"), "training.layout=sharde: did you mean shared"),
        (dict(keep_best=True), "training.keep_best needs training.eval_steps"),
        (dict(report_to=["wandbb"]), "training.report_to=wandbb: did you mean wandb"),
        (dict(scheduler="lineer"), "training settings"),
    ]:
        with pytest.raises(UserError, match=message):
            DPOTrainer(config=settings(**changes), train=some_pairs(), eval=some_pairs(), folder=tmp_path)
    with pytest.raises(UserError, match="no pair is left of 6: 6 prompts over data.max_prompt_length=2"):
        config = settings()
        config.data.max_prompt_length = 2
        DPOTrainer(config=config, train=some_pairs(), eval=some_pairs(), folder=tmp_path)
    with pytest.raises(UserError, match="the prompt of pair-0 has .* tokens, data.max_prompt_length is 2"):
        config.data.on_bad_row = "stop"
        DPOTrainer(config=config, train=some_pairs(), eval=some_pairs(), folder=tmp_path)
    with pytest.raises(UserError, match="reference.kind=adapter_off needs peft=lora"):
        config = settings()
        config.peft.method, config.reference.kind = "none", "adapter_off"
        DPOTrainer(config=config, train=some_pairs(), eval=some_pairs(), folder=tmp_path)


def test_resume_onto_other_data_is_refused(tmp_path: Path) -> None:
    DPOTrainer(
        config=settings(max_steps=2, save_steps=2), train=some_pairs(), eval=some_pairs(), folder=tmp_path
    ).train()
    trainer = DPOTrainer(
        config=settings(max_steps=2, save_steps=2), train=some_pairs(5), eval=some_pairs(), folder=tmp_path
    )
    with pytest.raises(UserError, match="training examples: 6 -> 5, 1 gone and 0 new"):
        trainer.resume(tmp_path / "checkpoints" / "checkpoint-2")


def test_holding_out_splits_by_prompt() -> None:
    pairs = some_pairs(60)
    twice = pairs + [type(pair)(**{**vars(pair), "id": pair.id + "b"}) for pair in pairs]
    train, held_out = split_by_prompt(twice, 0.3)
    assert {str(p.prompt) for p in train}.isdisjoint(str(p.prompt) for p in held_out)
    assert 0 < len(held_out) < len(train) and len(train) + len(held_out) == 120
    assert split_by_prompt(twice, 0.3) == (train, held_out)


def test_a_signal_while_held_out_pairs_are_scored_keeps_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trainer(name: str) -> DPOTrainer:
        config = settings(max_steps=3, eval_steps=2)
        return DPOTrainer(config=config, train=some_pairs(), eval=some_pairs(), folder=tmp_path / name)

    whole, run = trainer("whole"), trainer("run")
    whole.train()
    compute = run.compute

    def signalled(model: torch.nn.Module, *rest: Any) -> LossOutput:
        monkeypatch.setattr(TERMINATION, "asked", not model.training)
        return compute(model, *rest)

    run.compute = signalled
    with pytest.raises(Interrupted):
        run.train()
    monkeypatch.setattr(TERMINATION, "asked", False)
    again = trainer("run")
    again.resume(tmp_path / "run" / "checkpoints" / "checkpoint-2")
    assert rows(tmp_path / "run", "loss") == rows(tmp_path / "whole", "loss")
    ends = [each.model.state_dict() for each in (whole, again)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
