"""FlexAttention for long rows on a GPU: a block mask in place of a dense one, which grows with the square of the row.

transformers asks a registered function for the attention of every layer. Ours looks at the mask it is handed: a block
mask goes to FlexAttention, anything else (short rows, padded rows, sampling) to SDPA. So nothing is switched between
passes, and a layer that gradient checkpointing computes again takes the same way as the first time.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import AttentionInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from alignment.batching.packing import Batch, sees
from alignment.errors import UserError

NAME = "sdpa_or_block_mask"
DEVICES = ("cuda",)  # on a CPU FlexAttention has no backward pass
# Tokens of a row from which `auto` takes block masks. A dense mask has T^2 entries a row, and SDPA turns its bools into
# numbers of 2 or 4 bytes: 17 million entries here, and four times that for rows twice as long.
LONG_ROW = 4096
SMALLEST_HEAD = 16  # entries of an attention head that the GPU kernel needs


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """The attention of one layer, (B, heads, T, d) each -> (B, T, heads, d): by the kind of mask, see above."""
    if not isinstance(attention_mask, BlockMask):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    # Autocast casts what goes into SDPA but not into FlexAttention, and rotated queries and keys are float32 there.
    return flex_attention_forward(
        module, query.to(value.dtype), key.to(value.dtype), value, attention_mask=attention_mask, **kwargs
    )


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)


def use_block_masks(model: Any, wanted: str) -> None:
    """Let `model` (a transformers one) take block masks: `auto` for long rows where it can, `flex_attention` for all.

    Raises:
        UserError: flex_attention is asked for, and the model cannot.
    """
    reason = _why_not(model)
    if reason and wanted == "flex_attention":
        raise UserError(f"model.attention=flex_attention: {reason}; leave it at auto")
    if not reason:
        model.set_attn_implementation(NAME)
        model.block_mask_from = 0 if wanted == "flex_attention" else LONG_ROW


def _why_not(model: Any) -> str | None:
    text, name = model.config.get_text_config(), type(model).__name__
    heads = getattr(text, "num_attention_heads", 1)
    if not model._supports_flex_attn or not model._can_set_attn_implementation():
        return f"{name} does not support it in transformers"
    if model.config._attn_implementation not in ("sdpa", NAME):
        return f"{name} has no SDPA path, which short rows take"
    if any(getattr(text, rate, 0) for rate in ("attention_dropout", "attn_pdrop", "attn_dropout")):
        return f"{name} drops out attention, which FlexAttention cannot"
    if (getattr(text, "head_dim", None) or text.hidden_size // heads) < SMALLEST_HEAD:
        return f"{name} has attention heads of fewer than {SMALLEST_HEAD} entries"
    return None


def takes_block_mask(core: Any, batch: Batch) -> bool:
    """True where `core` was told to take block masks for rows as long as those of `batch`, on this device."""
    from_length = getattr(core, "block_mask_from", math.inf)
    return batch.input_ids.shape[1] >= from_length and batch.input_ids.device.type in DEVICES


def block_mask(batch: Batch, window: int | None = None) -> BlockMask:
    """The mask of `packing.sees` in blocks of 128 x 128 tokens; blocks that see nothing are never computed."""
    rows, length = batch.input_ids.shape
    device = batch.input_ids.device
    # Compiled, since the plain version makes the dense mask first.
    return create_block_mask(
        sees(batch, window), rows, None, length, length, device=str(device), _compile=device.type == "cuda"
    )
