"""`align data highlight`: judged answers of a file, a model, and which of their tokens CUT would detect with it."""

from __future__ import annotations

import random
from typing import Any

import torch

from alignment.config import DataConfig, JudgedConfig, ModelConfig, RunConfig
from alignment.data.judged_view import judged
from alignment.data.readers import load_examples
from alignment.data.templates import check_tokenizer
from alignment.errors import UserError
from alignment.evaluation.highlight import Row, highlight
from alignment.models.loading import is_adapter, load_model, load_tokenizer, merge_adapter, resolve
from alignment.trainers.judged_detection import detect


def highlight_file(
    source: Any,
    model: ModelConfig,
    data: DataConfig,
    settings: JudgedConfig,
    *,
    margin: float,
    variant: str = "paper",
    adapter: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> tuple[list[Row], str]:
    """Rows of `highlight` for the unsatisfactory answers of `source`, and a line on what was read and left out.

    Args:
        source: anything that `load_examples` reads; `data` says format, split, template and limits.
        adapter: the folder of a LoRA adapter, or of a run that made one, to put on the model.
        margin: CUT's lambda, above 0: a token is detected where its judgment makes it likelier by more than this.
        variant: of the loss cut: what the prompt with the judgment is compared with.
        limit: at most so many answers, sampled with `seed`, in their order.

    Raises:
        UserError: no unsatisfactory answer with a judgment, or none whose prompt fits.
    """
    if not margin > 0:
        raise UserError(f"margin={margin}: must be above 0")
    loaded = load_examples(source, format=data.format, split=data.split, on_bad_row=data.on_bad_row)
    records, loaded.report.left_out = judged(loaded.examples, satisfied_from=settings.satisfied_from)
    bad = [record for record in records if not record.satisfactory]
    if not bad:
        reasons = ", ".join(f"{count} × {why}" for why, count in loaded.report.left_out.items())
        raise UserError(
            f"{source}: no unsatisfactory answer with a judgment in it ({len(records)} satisfactory"
            f"{'; ' + reasons if reasons else ''})"
        )
    if limit is not None and len(bad) > limit:
        bad = [bad[at] for at in sorted(random.Random(seed).sample(range(len(bad)), limit))]
    tokenizer = load_tokenizer(model)
    check_tokenizer(tokenizer, data.template)
    config = RunConfig(
        model=model, data=data, judged=settings, loss={"name": "cut", "variant": variant, "margin": margin}
    )
    found = detect(_policy(model, adapter), tokenizer, bad, config)
    if not found:
        raise UserError(
            f"{source}: with its judgment, no prompt fits in {data.max_prompt_length} tokens: --max-prompt-length more"
        )
    return highlight(found, tokenizer, margin), loaded.report.summary()


def _policy(model: ModelConfig, adapter: str | None) -> Any:
    policy: Any = load_model(model)
    if adapter is not None:
        folder = resolve(adapter)
        if not is_adapter(folder):
            raise UserError(f"--adapter {adapter}: there is no adapter_config.json in {folder}")
        policy = merge_adapter(policy, folder)
    return policy.to("cuda") if torch.cuda.is_available() else policy
