"""Reference log-probs kept on disk by content: they outlive a run, a new seed, beta or loss, and an edited data set.

A key is the digest of all that a value depends on: the reference's weights and architecture, the autocast precision,
the token ids of prompt and completion, and the tokens' weights where they are not all 1. The layout, the make-up of a
micro-batch, the attention kernel and the device are not in it: they move a float32 sum by about 1e-6 of its size.

The values lie in a `ContentStore`, which several runs may share; what is wrong with it costs scoring again, no more.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignment.models.loading import cache_folder
from alignment.models.logps import causal_lm
from alignment.models.reference import AdapterOff, Reference
from alignment.storage import ContentStore

FILE = "reference-logps.sqlite3"
VERSION = 1  # raised where what is stored changes its meaning
# Entries of a configuration that do not enter a forward pass: two folders of the same model share their values.
NOT_ARCHITECTURE = ("_name_or_path", "transformers_version", "architectures", "use_cache", "dtype", "torch_dtype")


def open_cache(setting: bool | str) -> ReferenceCache | None:
    """The cache of `reference.cache`: true for the toolkit's cache folder, a folder, or false for none."""
    if setting is False:
        return None
    return ReferenceCache(cache_folder() if setting is True else Path(setting).expanduser())


def fingerprint(reference: Reference, autocast: str) -> bytes:
    """Digest of what turns token ids into the reference's log-probs: named weights, architecture, `autocast` precision.

    A base under switched-off adapters has the fingerprint of the plain model. Takes a second or two a gigabyte.
    """
    model = reference.policy if isinstance(reference, AdapterOff) else reference.model
    core = causal_lm(model)
    settings = {name: value for name, value in core.config.to_dict().items() if name not in NOT_ARCHITECTURE}
    architecture = [VERSION, type(core).__name__, settings, autocast]
    digest = hashlib.blake2b(json.dumps(architecture, sort_keys=True, default=str).encode(), digest_size=16)
    for name, tensor in sorted(_weights(reference)):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        raw: Any = tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy()
        digest.update(raw)
    return digest.digest()


def _weights(reference: Reference) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of the reference, under the plain model's names and without what an adapter adds."""
    added: tuple[str, ...] = ()
    if isinstance(reference, AdapterOff):
        state = reference.policy.get_base_model().state_dict()
        added = (getattr(reference.policy.base_model, "prefix", "lora_"), "modules_to_save")
    else:
        state = reference.model.state_dict()
    for name, tensor in state.items():
        parts = name.split(".")
        if torch.is_tensor(tensor) and not any(part.startswith(added) for part in parts):
            yield ".".join(part for part in parts if part not in ("base_layer", "original_module")), tensor


def key(mark: bytes, prompt: Sequence[int], completion: Sequence[int], weights: Sequence[float] | None = None) -> bytes:
    """The key of one completion's sum under the reference of fingerprint `mark`.

    `weights`: one a token of the completion, as multiplied into the sum; None where all are 1.
    """
    if weights is not None and all(weight == 1 for weight in weights):
        weights = None
    content = repr((tuple(prompt), tuple(completion), weights and tuple(weights)))
    return hashlib.blake2b(mark + content.encode(), digest_size=16).digest()


class ReferenceCache(ContentStore):
    """Sums of log-probs in nats by key, in `folder`. Safe to use from several processes at once."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / FILE, "reference log-probs")

    def put(self, values: Mapping[bytes, float]) -> None:
        """Add `values`; those that are not finite are left out."""
        super().put({key: value for key, value in values.items() if math.isfinite(value)})
