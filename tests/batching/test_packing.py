"""The layouts: what stands where, worked out by hand, and what must hold for any groups."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.batching.groups import Group, Unit
from alignment.batching.microbatch import cut_by_tokens, groups_of
from alignment.batching.packing import pack, shared_mask
from alignment.batching.rows import Tally
from alignment.batching.steps import StepSampler, balanced, steps_of

ids = st.lists(st.integers(1, 50), min_size=1, max_size=6).map(tuple)
groups = st.builds(Group, prompt=ids, completions=st.lists(ids, min_size=1, max_size=4).map(tuple))


def test_shared_row_by_hand() -> None:
    batch = pack([Group((11, 12), ((21, 22, 23), (31,)))], "shared", pad_id=0)
    assert batch.input_ids.tolist() == [[11, 12, 21, 22, 23, 31]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 2]]
    assert batch.branches.tolist() == [[0, 0, 1, 1, 1, 2]]
    assert batch.predictors.tolist() == [1, 2, 3, 1]  # the prompt's last token predicts both first tokens
    assert batch.targets.tolist() == [21, 22, 23, 31]
    assert batch.owners.tolist() == [0, 0, 0, 1]
    assert batch.lengths.tolist() == [3, 1]
    seen = shared_mask(batch)[0, 0].int().tolist()
    assert seen == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 1, 0, 0, 0, 1],  # the second completion sees the prompt and itself, not the first
    ]


def test_window_is_cut_by_positions() -> None:
    batch = pack([Group((11, 12), ((21, 22, 23), (31,)))])
    last = shared_mask(batch, window=2)[0, 0, 5].tolist()
    assert last == [False, True, False, False, False, True]  # position 2 sees positions 1 and 2, five rows apart or not


def test_two_groups_share_a_row_and_do_not_see_each_other() -> None:
    batch = pack([Group((1,), ((2,),)), Group((3, 4), ((5,), (6,))), Group((7,), ((8,),))])
    assert batch.input_ids.tolist() == [[3, 4, 5, 6], [1, 2, 7, 8]]  # two short ones fill a row as long as the longest
    assert not shared_mask(batch)[1, 0, 2:, :2].any()
    assert batch.targets.tolist() == [2, 5, 6, 8]  # in the order the groups were given


def test_padded_rows_by_hand() -> None:
    batch = pack([Group((11, 12), ((21, 22), (31,)))], "padded", pad_id=9)
    assert batch.input_ids.tolist() == [[11, 12, 21, 22], [11, 12, 31, 9]]
    assert batch.predictors.tolist() == [1, 2, 5]
    assert (batch.segments >= 0).int().tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]


@pytest.mark.parametrize("layout", ["shared", "padded"])
@given(found=st.lists(groups, min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_every_token_is_predicted_once_from_the_one_before(layout: str, found: list[Group]) -> None:
    batch = pack(found, layout)
    completions = [completion for group in found for completion in group.completions]
    assert batch.lengths.tolist() == [len(completion) for completion in completions]
    flat_ids, flat_positions = batch.input_ids.flatten(), batch.position_ids.flatten()
    at = 0
    for number, (group, completion) in enumerate((g, c) for g in found for c in g.completions):
        piece = slice(at, at + len(completion))
        assert batch.targets[piece].tolist() == list(completion)
        assert set(batch.owners[piece].tolist()) == {number}
        before = [group.prompt[-1], *completion[:-1]]
        assert flat_ids[batch.predictors[piece]].tolist() == before
        start = len(group.prompt) - 1
        assert flat_positions[batch.predictors[piece]].tolist() == list(range(start, start + len(completion)))
        at += len(completion)
    assert at == batch.targets.numel()
    tally = Tally(layout)
    tally.add(found)
    assert (tally.encoded, tally.real) == (batch.encoded_tokens, int((batch.segments >= 0).sum()))


@given(found=st.lists(groups, min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_a_token_sees_exactly_its_own_sequence(found: list[Group]) -> None:
    batch = pack(found)
    mask = shared_mask(batch)[:, 0]
    for r in range(batch.input_ids.shape[0]):
        for i in range(batch.input_ids.shape[1]):
            if batch.segments[r, i] < 0:
                assert mask[r, i].sum() == 1  # padding sees itself, so that no softmax is empty
            else:
                positions = batch.position_ids[r, mask[r, i]]
                assert sorted(positions.tolist()) == list(range(int(batch.position_ids[r, i]) + 1))


def test_empty_completions_and_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        Group((), ((1,),))
    with pytest.raises(ValueError, match="at least one token"):
        Group((1,), ((2,), ()))


@given(found=st.lists(st.lists(groups, min_size=1, max_size=2), min_size=1, max_size=8), budget=st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_cutting_keeps_units_whole_and_within_the_budget(found: list[list[Group]], budget: int) -> None:
    units = [Unit(str(i), tuple(linked)) for i, linked in enumerate(found)]
    pieces = cut_by_tokens(units, budget)
    assert sorted(unit.id for piece in pieces for unit in piece) == sorted(unit.id for unit in units)
    for piece in pieces:
        assert len(piece) == 1 or pack(groups_of(piece), "shared").encoded_tokens <= budget


def test_a_busy_device_takes_no_further_unit_that_only_pads() -> None:
    units = [Unit(str(n), (Group((1,) * 10, ((2,) * (n - 15), (3,) * 5)),)) for n in (100, 98, 70, 69)]  # n tokens each
    cut = [[unit.id for unit in piece] for piece in cut_by_tokens(units, 1000, "shared", enough=90)]
    assert cut == [["100", "98"], ["70", "69"]]  # 2 and 1 tokens of padding; with 70 beside 100 it would be 32
    assert len(cut_by_tokens(units, 1000, "shared", enough=500)) == 1  # not busy yet
    assert len(cut_by_tokens(units, 150, "shared", enough=500)) == 3  # the budget still holds: 100, 98, 70 + 69


def test_the_longest_go_to_the_emptiest() -> None:
    # 9; 5 and 4 to the other; 3 to the one with fewer examples of two with 9 tokens; 1 to the other: 12 and 10.
    assert balanced([3, 9, 4, 5, 1], 2) == [[0, 1], [2, 3, 4]]
    assert balanced([2, 2, 2, 2, 2], 2) == [[0, 2, 4], [1, 3]]  # equal ones go round
    assert balanced([7], 3) == [[0], [], []]
    assert balanced([], 2) == [[], []]


@given(lengths=st.lists(st.integers(1, 2000), max_size=40), ranks=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_no_rank_has_an_example_more_than_it_must(lengths: list[int], ranks: int) -> None:
    shares = balanced(lengths, ranks)
    assert sorted(place for share in shares for place in share) == list(range(len(lengths)))
    sums = [sum(lengths[place] for place in share) for share in shares]
    for share, total in zip(shares, sums, strict=True):
        assert not share or total - min(lengths[place] for place in share) <= min(sums)


def _stream(examples: int, batch: int, steps: int, seed: int, ranks: int) -> list[list[int]]:
    lengths = [1 + 37 * index % 11 for index in range(examples)]
    samplers = [iter(StepSampler(examples, batch, steps, seed, rank, ranks, lengths)) for rank in range(ranks)]
    return [sorted(index for sampler in samplers for index in next(sampler)) for _ in range(steps)]


@given(examples=st.integers(1, 20), batch=st.integers(1, 7), seed=st.integers(0, 5), ranks=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_steps_are_the_same_on_any_number_of_processes(examples: int, batch: int, seed: int, ranks: int) -> None:
    steps = steps_of(examples, batch, 3)
    one, many = _stream(examples, batch, steps, seed, 1), _stream(examples, batch, steps, seed, ranks)
    assert one == many
    assert all(len(step) == batch for step in one)
    seen = [index for sampler in [StepSampler(examples, batch, steps, seed)] for step in sampler for index in step]
    for epoch in range(3):  # every example once an epoch
        assert sorted(seen[epoch * examples : (epoch + 1) * examples]) == list(range(examples))


def test_epochs_differ_and_seeds_differ() -> None:
    first = StepSampler(50, 10, 10, seed=0)
    assert first.permutation(0) != first.permutation(1) != StepSampler(50, 10, 10, seed=1).permutation(1)
    assert torch.equal(torch.tensor(first.permutation(3)), torch.tensor(StepSampler(50, 5, 1, seed=0).permutation(3)))
