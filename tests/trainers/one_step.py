"""One optimizer step of plain SGD with learning rate 1, so that the weights fall by exactly the gradient.

Run by tests, on one process or under `accelerate launch` on two: `one_step.py OUT peft token_budget layout`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from alignment.config import EvaluationConfig, ModelConfig, PeftConfig, RunConfig, TrainingConfig
from alignment.trainers.dpo import DPOTrainer
from tests.trainers.pairs import some_pairs


def one_step(
    out: Path, peft: str = "none", token_budget: int = 4096, layout: str = "shared", batch_size: int = 6
) -> dict:
    """The trained weights after one step over `batch_size` pairs; rank 0 saves them to `out`/weights.pt."""
    config = RunConfig(
        model=ModelConfig(path="tiny", dtype="float32"),
        peft=PeftConfig(method=peft, r=4),
        training=TrainingConfig(
            learning_rate=1.0,
            batch_size=batch_size,
            max_steps=1,
            token_budget=token_budget,
            layout=layout,
            bf16=False,
            optimizer="sgd",
            scheduler="constant",
            warmup_ratio=0.0,
            max_grad_norm=0.0,
        ),
        evaluation=EvaluationConfig(prompts=0),
    )
    pairs = some_pairs()
    trainer = DPOTrainer(config=config, train=pairs, eval=pairs, folder=out)
    torch.manual_seed(0)
    with torch.no_grad():  # off the reference, so that the gradient is not the symmetric one of the start
        for name, parameter in sorted(trainer.model.named_parameters()):
            if parameter.requires_grad and ("lora_B" in name or ("mlp" in name and peft == "none")):
                parameter.add_(0.05 * torch.randn(parameter.shape))
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    step = {name: before[name] - p.detach() for name, p in trainer.model.named_parameters() if p.requires_grad}
    metrics = trainer.evaluate()
    if trainer.is_world_process_zero():
        torch.save({"gradient": step, "before": before, "metrics": metrics}, out / "weights.pt")
    return {"gradient": step, "before": before, "metrics": metrics, "trainer": trainer}


if __name__ == "__main__":
    target, peft, budget, layout = sys.argv[1:5]
    one_step(Path(target), peft, int(budget), layout)
