"""Groups -> one batch of token rows, in the shared-prefix layout or in the plain padded one.

Shared layout: a group is `prompt | completion 1 | … | completion K` in one row. The prompt is encoded once, positions
restart behind it for each completion, and the attention mask keeps completions from seeing each other. Rows are as long
as the longest group; shorter groups share a row, and the mask keeps them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from alignment.batching.groups import Group
from alignment.batching.rows import FirstFit

LAYOUTS = ("shared", "padded")


@dataclass
class Batch:
    """Token rows, and where in them the completions are. R rows of T tokens, N completion tokens, C completions."""

    input_ids: Tensor  # (R, T) int64
    position_ids: Tensor  # (R, T) int64
    segments: Tensor  # (R, T) int64: the group of each token, -1 where padding
    branches: Tensor  # (R, T) int64: 0 in a prompt, k in the k-th completion of its group
    predictors: Tensor  # (N,) int64: flat index into (R, T) of the position that predicts the token
    targets: Tensor  # (N,) int64: the token ids predicted
    owners: Tensor  # (N,) int64: which of the C completions each belongs to, ascending
    lengths: Tensor  # (C,) int64: tokens of each completion
    ends: Tensor  # (C,) int64: flat index into (R, T) of each completion's last token, where a score is read
    layout: str

    @property
    def completions(self) -> int:
        return self.lengths.numel()

    @property
    def encoded_tokens(self) -> int:
        """Rows times row length, padding included: what the model computes."""
        return self.input_ids.numel()

    def to(self, device: torch.device | str) -> Batch:
        tensors = {name: value for name, value in vars(self).items() if torch.is_tensor(value)}
        moved: dict[str, Any] = {name: value.to(device, non_blocking=True) for name, value in tensors.items()}
        return replace(self, **moved)


def pack(groups: Sequence[Group], layout: str = "shared", pad_id: int = 0) -> Batch:
    """Lay `groups` out as one batch; completions keep the order of groups, then of completions within a group.

    `pad_id` fills up padded rows.
    """
    rows = shared_rows(groups) if layout == "shared" else padded_rows(groups)
    width = max(sum(piece.length for piece in row) for row in rows)
    shape = (len(rows), width)
    # In shared rows padding sees itself alone, so an embedding of zero would stay zero, where the gradient of a norm is
    # not a number (Gemma 3n). Nothing sees it, so any token of the batch does.
    ids = torch.full(shape, groups[0].prompt[0] if layout == "shared" else pad_id, dtype=torch.long)
    positions = torch.zeros(shape, dtype=torch.long)
    segments = torch.full(shape, -1, dtype=torch.long)
    branches = torch.zeros(shape, dtype=torch.long)
    # Completion number, predicting positions, targets, position of its last token.
    found: list[tuple[int, list[int], tuple[int, ...], int]] = []
    for r, row in enumerate(rows):
        at = 0
        for piece in row:
            end = at + piece.length
            ids[r, at:end] = torch.tensor(piece.ids)
            segments[r, at:end] = piece.segment
            n_prompt = len(piece.prompt)
            positions[r, at : at + n_prompt] = torch.arange(n_prompt)
            start = at + n_prompt
            for branch, (number, completion) in enumerate(piece.completions, start=1):
                stop = start + len(completion)
                positions[r, start:stop] = torch.arange(n_prompt, n_prompt + len(completion))
                branches[r, start:stop] = branch
                # The prompt's last token predicts the first token of every completion.
                sources = [at + n_prompt - 1, *range(start, stop - 1)]
                found.append((number, [r * width + s for s in sources], completion, r * width + stop - 1))
                start = stop
            at = end
    found.sort(key=lambda item: item[0])
    return Batch(
        input_ids=ids,
        position_ids=positions,
        segments=segments,
        branches=branches,
        predictors=torch.tensor([p for _, sources, _, _ in found for p in sources]),
        targets=torch.tensor([t for _, _, completion, _ in found for t in completion]),
        owners=torch.tensor([number for number, _, completion, _ in found for _ in completion]),
        lengths=torch.tensor([len(completion) for _, _, completion, _ in found]),
        ends=torch.tensor([end for _, _, _, end in found]),
        layout=layout,
    )


@dataclass
class _Piece:
    """A prompt and some of its completions (each with its number in the batch) that lie in one row."""

    segment: int
    prompt: tuple[int, ...]
    completions: list[tuple[int, tuple[int, ...]]]

    @property
    def ids(self) -> list[int]:
        return [*self.prompt, *(token for _, completion in self.completions for token in completion)]

    @property
    def length(self) -> int:
        return len(self.prompt) + sum(len(completion) for _, completion in self.completions)


def _pieces(groups: Sequence[Group]) -> list[_Piece]:
    pieces, number = [], 0
    for segment, group in enumerate(groups):
        pieces.append(_Piece(segment, group.prompt, [(number + k, c) for k, c in enumerate(group.completions)]))
        number += len(group.completions)
    return pieces


def shared_rows(groups: Sequence[Group]) -> list[list[_Piece]]:
    """Groups in as few rows as first fit makes of them, each with its prompt once."""
    fit = FirstFit()
    rows: list[list[_Piece]] = []
    for piece in sorted(_pieces(groups), key=lambda piece: -piece.length):
        fit.add(piece.length)
        row = fit.placed[-1][1]
        if row == len(rows):
            rows.append([])
        rows[row].append(piece)
    return rows


def padded_rows(groups: Sequence[Group]) -> list[list[_Piece]]:
    """One row a completion, each with its own copy of the prompt."""
    return [[_Piece(p.segment, p.prompt, [completion])] for p in _pieces(groups) for completion in p.completions]


def sees(batch: Batch, window: int | None = None) -> Callable[[Any, Any, Any, Any], Tensor]:
    """Who may look at whom in the shared layout, as a function (row, head, query, key) -> bool, all of them indices.

    A token sees earlier tokens of its own group that belong to the prompt or to its own completion. A sliding window is
    cut by difference of positions, not of row indices, since completions restart behind the prompt. Padding sees
    itself, so that no row of the softmax is empty. The signature is that of FlexAttention's `mask_mod`.
    """
    segments, branches, positions = batch.segments, batch.branches, batch.position_ids

    def may_look(row: Any, head: Any, query: Any, key: Any) -> Tensor:
        own_group = (segments[row, query] == segments[row, key]) & (segments[row, key] >= 0)
        own_branch = (branches[row, key] == 0) | (branches[row, query] == branches[row, key])
        seen = (query >= key) & own_group & own_branch
        if window is not None:
            seen = seen & (positions[row, query] - positions[row, key] < window)
        return seen | (query == key)

    return may_look


def shared_mask(batch: Batch, window: int | None = None) -> Tensor:
    """The attention mask of the shared layout by `sees`, (R, 1, T, T) bool, True where a token may look."""
    rows, length = batch.input_ids.shape
    row = torch.arange(rows, device=batch.input_ids.device)[:, None, None]
    order = torch.arange(length, device=batch.input_ids.device)
    return sees(batch, window)(row, 0, order[:, None], order[None, :])[:, None]
