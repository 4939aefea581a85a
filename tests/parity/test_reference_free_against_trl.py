"""CPO, SimPO and ORPO beside TRL's experimental trainers, on the same tiny model and batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from alignment.losses.combine import PairLoss, Term
from alignment.losses.record import LossOutput, PairLogps
from alignment.losses.reference_free import cpo, orpo, sft
from alignment.models.loading import load_tokenizer
from tests.parity.bench import (
    PEER_ARGUMENTS,
    TINY,
    Measured,
    agree,
    distance,
    gradient,
    our_trainer,
    ours,
    peer_model,
    text_rows,
)
from tests.parity.test_losses_against_trl import token_mean

pytest.importorskip("trl")


class Bench:
    """Our trainer, and TRL's CPO and ORPO trainers, each with its batch."""

    def __init__(self, folder: Any) -> None:
        import datasets
        from trl.experimental.cpo import CPOConfig, CPOTrainer
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

        self.trainer = our_trainer(folder / "ours")
        for name, kind, config in (("cpo", CPOTrainer, CPOConfig), ("orpo", ORPOTrainer, ORPOConfig)):
            peer = kind(
                model=peer_model(self.trainer),
                args=config(output_dir=str(folder / name), beta=0.1, max_length=512, **PEER_ARGUMENTS),
                train_dataset=datasets.Dataset.from_list(text_rows()),
                processing_class=load_tokenizer(TINY),
            )
            peer.model.eval()
            setattr(self, name, peer)
            setattr(self, f"{name}_batch", peer._prepare_inputs(next(iter(peer.get_train_dataloader()))))

    def theirs_cpo(self, **settings: Any) -> Measured:
        for name, value in (dict(beta=0.1, cpo_alpha=0.0, label_smoothing=0.0, loss_type="sigmoid") | settings).items():
            assert hasattr(self.cpo, name) or name == "simpo_gamma", name
            setattr(self.cpo, name, value)
        self.cpo.model.zero_grad()
        loss, _ = self.cpo.get_batch_loss_metrics(self.cpo.model, self.cpo_batch)
        loss.backward()
        return float(loss.detach()), gradient(self.cpo.model)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("parity"))


def test_cpos_preference_term(bench: Bench) -> None:
    agree(ours(bench.trainer, {"name": "cpo", "nll_weight": 0.0}), bench.theirs_cpo())
    agree(
        ours(bench.trainer, {"name": "cpo", "nll_weight": 0.0, "label_smoothing": 0.2}),
        bench.theirs_cpo(label_smoothing=0.2),
    )


def test_cpos_nll_is_a_mean_over_the_batchs_tokens_in_trl(bench: Bench) -> None:
    """TRL's fault, as with its `sft`: ours takes each example's mean. With TRL's weights put in, both agree."""
    theirs = bench.theirs_cpo(cpo_alpha=1.0)

    def preference(pairs: PairLogps) -> LossOutput:
        return cpo(pairs, 0.1, nll_weight=0.0)

    terms = (Term("cpo", preference, 1.0, False), Term("nll", token_mean, 1.0, False))
    agree(ours(bench.trainer, PairLoss(terms)), theirs)
    assert distance(ours(bench.trainer, {"name": "cpo"}), theirs)[0] > 1e-3


def test_simpo(bench: Bench) -> None:
    theirs = bench.theirs_cpo(loss_type="simpo", beta=2.0, simpo_gamma=0.7)
    agree(ours(bench.trainer, {"name": "simpo", "beta": 2.0, "gamma": 0.7}), theirs)


def test_orpos_odds_ratio(bench: Bench) -> None:
    """TRL's fault: its NLL runs over prompt and completion, where the paper fine-tunes on the answer. So the odds-ratio
    terms are compared (ours without its NLL), and TRL's NLL is shown to be the one of the whole sequence."""
    bench.orpo.beta = 0.1
    bench.orpo.model.zero_grad()
    chosen, rejected, _, _, nll = bench.orpo.concatenated_forward(bench.orpo.model, bench.orpo_batch)[:5]
    loss = -bench.orpo.odds_ratio_loss(chosen, rejected)[0].mean()
    loss.backward()
    terms = (Term("orpo", lambda pairs: orpo(pairs, 0.1), 1.0, False), Term("nll", sft, -1.0, False))
    agree(ours(bench.trainer, PairLoss(terms)), (float(loss.detach()), gradient(bench.orpo.model)))

    batch = bench.orpo_batch
    ids, mask = batch["chosen_input_ids"], batch["chosen_attention_mask"]
    with torch.no_grad():
        whole = bench.orpo.model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
    assert float(nll.detach()) == pytest.approx(float(whole), abs=1e-5)
    of_answers, _ = ours(bench.trainer, {"name": "sft"})
    assert abs(float(nll.detach()) - of_answers) > 1e-2
