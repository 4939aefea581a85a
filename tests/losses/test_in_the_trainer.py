"""The losses in a DPO run on `tiny`: a reference only where needed, token and pair weights, a loss of one's own."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
import yaml

from alignment.batching.microbatch import groups_of
from alignment.batching.packing import pack
from alignment.evaluation.end_of_run import EndOfRun
from alignment.launch.compose import Composer
from alignment.losses.modifiers import ld_weights
from alignment.losses.record import PairLogps
from alignment.models.logps import sum_by_completion, token_logps
from alignment.trainers import dpo
from alignment.trainers.dpo import DPOTrainer
from alignment.trainers.loss_settings import build_loss
from tests.launching import ROOT
from tests.trainers.pairs import some_pairs
from tests.trainers.test_dpo import rows, settings


def trainer_of(tmp_path: Path, loss: dict, peft: str = "lora", when: str = "step", **training) -> DPOTrainer:
    config = settings(**training)
    config.loss, config.peft.method, config.reference.when = loss, peft, when
    config.reference.cache = False
    return DPOTrainer(config=config, train=some_pairs(), eval=some_pairs(), folder=tmp_path)


@pytest.mark.parametrize("name", ["simpo", "orpo", "cpo", "sft"])
def test_a_loss_without_reference_scores_none_and_copies_none(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args, **kwargs):
        raise AssertionError("the reference was scored")

    monkeypatch.setattr(dpo, "reference_sums", refuse)
    trainer = trainer_of(tmp_path, {"name": name}, peft="none", when="precompute", learning_rate=1e-4)
    assert trainer.reference is None
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before


def test_without_a_reference_the_table_has_no_kl_and_no_fluency(tmp_path: Path) -> None:
    for peft, kinds in (("none", {"length"}), ("lora", {"length", "kl", "fluency"})):
        trainer = trainer_of(tmp_path / peft, {"name": "simpo"}, peft=peft)
        trainer.config.evaluation.prompts, trainer.config.evaluation.max_new_tokens = 2, 4
        end = EndOfRun(trainer, trainer.data.prompts)
        assert set(end.table(end.ask(), end.ask())) == kinds


def test_a_copy_that_is_asked_for_is_kept(tmp_path: Path) -> None:
    config = settings()
    config.loss, config.peft.method, config.reference.kind = {"name": "simpo"}, "none", "frozen_copy"
    trainer = DPOTrainer(config=config, train=some_pairs(), eval=some_pairs(), folder=tmp_path)
    assert trainer.reference is not None


def test_a_sum_reports_its_terms(tmp_path: Path) -> None:
    terms = [{"name": "sigmoid", "beta": 0.1}, {"name": "sft", "weight": 0.5}]
    metrics = trainer_of(tmp_path, {"terms": terms}).evaluate()
    assert metrics["eval_loss"] == pytest.approx(metrics["eval_loss_sigmoid"] + 0.5 * metrics["eval_loss_sft"])
    assert metrics["eval_loss_sft"] == pytest.approx(-metrics["eval_chosen_logp"])


@pytest.mark.parametrize("when", ["step", "precompute"])
def test_ld_dpo_sums_both_policies_with_the_token_weights(when: str, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, {"name": "sigmoid", "ld_alpha": 0.25}, when=when)
    trainer.train()  # off the reference, and past the precomputation
    units = trainer.train_units
    batch = pack(groups_of(units), trainer.layout, trainer.pad_id)
    weights = ld_weights(batch.lengths, batch.owners, 0.25)
    trainer.model.eval()
    with torch.no_grad():
        output = trainer.compute(trainer.model, units, batch)
        policy = token_logps(trainer.model, batch)
        with trainer.model.disable_adapter():
            reference = token_logps(trainer.model, batch)
    ratio = sum_by_completion(weights * (policy - reference), batch)
    torch.testing.assert_close(output.metrics["margin"], 0.1 * (ratio[0::2] - ratio[1::2]), atol=1e-5, rtol=1e-4)
    whole = sum_by_completion(policy, batch) / batch.lengths
    torch.testing.assert_close(output.metrics["chosen_logp"], whole[0::2])
    assert (weights < 1).any()


def test_wpo_weighs_pairs_by_their_alignment(tmp_path: Path) -> None:
    plain, weighted = (
        trainer_of(tmp_path / name, {"name": "hinge"} | extra)
        for name, extra in (("plain", {}), ("wpo", {"weighting": "wpo"}))
    )
    units = plain.train_units
    batch = pack(groups_of(units), plain.layout, plain.pad_id)
    plain.model.eval(), weighted.model.eval()
    with torch.no_grad():
        one, other = plain.compute(plain.model, units, batch), weighted.compute(weighted.model, units, batch)
        # By hand for the first answer of the first pair: the whole distribution at each of its tokens.
        group = units[0].groups[0]
        total = 0.0
        for completion in group.completions:
            ids = torch.tensor([[*group.prompt, *completion]])
            logps = weighted.model(input_ids=ids).logits[0, len(group.prompt) - 1 : -1].log_softmax(-1)
            chosen = logps.gather(-1, torch.tensor(completion)[:, None]).squeeze(-1)
            total += float((chosen - (2 * logps).logsumexp(-1)).mean())
    weight = other.metrics["pair_weight"]
    torch.testing.assert_close(other.values, one.values * weight, atol=1e-5, rtol=1e-5)
    assert weight[0].item() == pytest.approx(torch.tensor(total).exp().item(), rel=1e-4)


def test_a_new_loss_is_one_file_and_one_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of docs/extending.md as an option of a shipped recipe, from the folder of a user."""
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    files = dict(re.findall(r"^```\w+\n# (\S+\.\w+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE))
    (tmp_path / "dpop.py").write_text(files["dpop.py"])
    (tmp_path / "my_configs" / "loss").mkdir(parents=True)
    (tmp_path / "my_configs" / "loss" / "dpop.yaml").write_text(
        yaml.safe_dump(yaml.safe_load(files["dpop.yaml"])["loss"])
    )
    monkeypatch.chdir(tmp_path)
    composed = Composer.create("my_configs").config(["recipe=dpo", "loss=dpop", "loss.drop_weight=2"])
    assert composed.loss == {"name": "dpop.py:dpop", "beta": 0.1, "drop_weight": 2}
    one, length = torch.ones(2), torch.tensor([4.0, 4.0])
    chosen, rejected = torch.tensor([-3.0, -1.0]), torch.tensor([-5.0, -5.0])
    output = build_loss(composed.loss)(PairLogps(chosen, rejected, -2 * one, -3 * one, length, length, one))
    # u_w = -1, u_l = -2 and drop 1: h = 0.1 (-1 + 2 - 2); u_w = 1, u_l = -2 and no drop: h = 0.1 (1 + 2)
    assert output.values.tolist() == pytest.approx([math.log1p(math.exp(0.1)), math.log1p(math.exp(-0.3))])
    assert output.metrics["chosen_drop"].tolist() == [1.0, 0.0]
    trainer = trainer_of(tmp_path / "run", composed.loss)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(math.log(2), abs=1e-5)
    trainer.train()
    assert rows(tmp_path / "run", "chosen_drop")[0] == 0
