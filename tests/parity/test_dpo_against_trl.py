"""One batch, one tiny model: our DPO step against TRL's DPOTrainer, loss and gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from alignment.config import ModelConfig
from alignment.data.templates import encode_pair
from alignment.models.loading import load_model, load_tokenizer
from tests.trainers.one_step import one_step
from tests.trainers.pairs import some_pairs

trl = pytest.importorskip("trl")


def test_loss_and_gradient(tmp_path: Path) -> None:
    import datasets

    ours = one_step(tmp_path / "ours", "none")
    config = ModelConfig(path="tiny", dtype="float32")
    model, reference, tokenizer = load_model(config), load_model(config), load_tokenizer(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(ours["before"][name])
    # As plain text: with messages TRL also trains what the template writes behind the end of the turn (a newline here).
    rows = []
    for pair in some_pairs():
        prompt, chosen = encode_pair(tokenizer, pair.prompt, pair.chosen)
        _, rejected = encode_pair(tokenizer, pair.prompt, pair.rejected)
        texts = [tokenizer.decode(ids) for ids in (prompt, chosen[:-1], rejected[:-1])]  # TRL adds the end token
        rows.append(dict(zip(("prompt", "chosen", "rejected"), texts, strict=True)))
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path / "trl"),
        beta=0.1,
        per_device_train_batch_size=len(rows),
        learning_rate=1.0,
        optim="sgd",
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        max_steps=1,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        logging_steps=1,
        disable_tqdm=True,
        save_strategy="no",
    )
    peer = trl.DPOTrainer(
        model=model,
        ref_model=reference,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
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
