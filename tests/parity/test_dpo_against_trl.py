"""One batch, one tiny model: our DPO step against TRL's DPOTrainer, loss and gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from alignment.models.loading import load_model, load_tokenizer
from tests.parity.bench import PEER_ARGUMENTS, TINY, text_rows
from tests.trainers.one_step import one_step

trl = pytest.importorskip("trl")


def test_loss_and_gradient(tmp_path: Path) -> None:
    import datasets

    ours = one_step(tmp_path / "ours", "none")
    model, reference, tokenizer = load_model(TINY), load_model(TINY), load_tokenizer(TINY)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(ours["before"][name])
    arguments = dict(
        output_dir=str(tmp_path / "trl"),
        beta=0.1,
        learning_rate=1.0,
        optim="sgd",
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        logging_steps=1,
    )
    peer = trl.DPOTrainer(
        model=model,
        ref_model=reference,
        args=trl.DPOConfig(**PEER_ARGUMENTS | arguments),
        train_dataset=datasets.Dataset.from_list(text_rows()),
        processing_class=tokenizer,
    )
    peer.train()
    their_loss = next(row["loss"] for row in peer.state.log_history if "loss" in row)
    our_loss = next(row["loss"] for row in ours["trainer"].state.log_history if "loss" in row)
    assert our_loss == pytest.approx(their_loss, abs=1e-5)
    norm = difference = 0.0
    for name, parameter in peer.model.named_parameters():
        theirs = ours["before"][name] - parameter.detach()
        difference += float((theirs - ours["gradient"][name]).square().sum())
        norm += float(theirs.square().sum())
    assert (difference / norm) ** 0.5 < 1e-4
