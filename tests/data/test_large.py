"""Large data on disk: what is prepared by several processes is what one process has in memory, and is made once."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from alignment.batching.groups import Group, Unit
from alignment.batching.packing import Batch
from alignment.batching.stored import StoredUnits, as_batch, digests, lengths_of
from alignment.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from alignment.data.workers import over_pieces, pieces
from alignment.errors import UserError
from alignment.models.loading import load_tokenizer
from alignment.models.logps import sum_by_completion, token_logps
from alignment.trainers import inputs, preparation
from alignment.trainers.dpo import DPOTrainer
from alignment.trainers.inputs import TrainingData, load_improvements, load_pairs
from alignment.trainers.map_units import score_units


def units(count: int) -> list[Unit]:
    return [
        Unit(
            f"ü{n}",
            tuple(Group((n + 1, 2), ((3,) * (k + 1), (4,))) for k in range(n % 3 + 1)),
            {"p_chosen": n / 7, "margin": -1.5} if n % 2 else {},
            (Group((9,), ((8, 7),)),) if n % 4 == 0 else (),
        )
        for n in range(count)
    ]


def test_stored_units_are_the_units(tmp_path: Path) -> None:
    wanted = units(10)
    stored = StoredUnits.write(tmp_path / "units.arrow", [as_batch(wanted[:4]), as_batch([]), as_batch(wanted[4:])])
    assert len(stored) == 10 and list(stored) == wanted == stored[:] and stored[-1] == wanted[9]
    assert stored[2:9:3] == wanted[2:9:3]
    for layout in ("shared", "padded"):
        assert list(stored.lengths(layout)) == lengths_of(wanted, layout)
    assert lengths_of(wanted, "shared")[1] == 2 + 1 + 1 + 2 + 2 + 1  # two groups
    assert lengths_of(wanted, "padded")[1] == (3 + 3) + (4 + 3)
    assert digests(stored) == digests(wanted) and len(set(digests(wanted))) == 10
    with pytest.raises(IndexError):
        stored[10]
    assert len(StoredUnits.write(tmp_path / "none.arrow", [])) == 0


def test_pieces_come_in_order_from_several_processes() -> None:
    found = list(over_pieces(lambda part: (list(part), os.getpid()), pieces(23, 2), workers=2))
    assert [number for numbers, _ in found for number in numbers] == list(range(23))
    assert os.getpid() not in {process for _, process in found}


def test_what_a_worker_raises_is_raised_here() -> None:
    def refuse(part: range) -> int:
        if 5 in part:
            raise UserError("the fifth")
        return len(part)

    with pytest.raises(UserError, match="the fifth"):
        list(over_pieces(refuse, pieces(8, 1), workers=2))
    with pytest.raises(UserError, match="was killed, most likely for its memory; data.workers=1"):
        list(over_pieces(lambda part: os._exit(9), pieces(8, 1), workers=2))


def rows(count: int) -> str:
    asked = [f"What is {n % 37} plus {n}?" for n in range(count)]
    made = [
        {"prompt": prompt, "chosen": f"It is {n % 37 + n}.", "rejected": "No." * (n % 5 + 1)}
        for n, prompt in enumerate(asked)
    ]
    made[3]["prompt"] = "much too long " * 40
    made[4]["chosen"] = made[4]["rejected"]
    return "".join(json.dumps(row) + "\n" for row in made)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setattr(preparation, "LARGE", 100)
    monkeypatch.setattr(preparation, "LARGE_BYTES", 1000)
    monkeypatch.setattr(preparation, "PIECE", 20)
    (tmp_path / "rows.jsonl").write_text(rows(150))
    data = DataConfig(path=str(tmp_path / "rows.jsonl"), cache=str(tmp_path / "cache"), workers=2, max_prompt_length=60)
    return RunConfig(data=data)


def alike(stored: TrainingData, kept: TrainingData) -> None:
    assert isinstance(stored.train, StoredUnits) and isinstance(kept.train, list)
    assert list(stored.train) == kept.train and list(stored.evaluation) == list(kept.evaluation)
    assert stored.counts == kept.counts and stored.prompts == kept.prompts
    assert list(stored.held_out) == list(kept.held_out)
    assert list(stored.records.values()) == list(kept.records.values())
    name = kept.train[5].id
    assert stored.records[name] == kept.records[name] and list(stored.records) == list(kept.records)


@pytest.mark.parametrize("load", [load_pairs, load_improvements])
def test_prepared_data_is_what_is_otherwise_in_memory(
    load: object, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(ModelConfig(path="tiny"))
    more = [_showing()] if load is load_improvements else []
    for settings in ({}, {"part": "rl", "limit": 20, "eval_limit": None}, {"eval_fraction": 0.0}):
        for name, value in settings.items():
            setattr(config.data, name, value)
        stored = load(None, None, tokenizer, config, *more)  # type: ignore[operator]
        with monkeypatch.context() as patch:
            patch.setattr(preparation, "LARGE", 10**9)
            patch.setattr(preparation, "LARGE_BYTES", 10**9)
            kept = load(None, None, tokenizer, config, *more)  # type: ignore[operator]
        alike(stored, kept)


def _showing() -> object:
    from alignment.batching.improvements import Showing
    from alignment.data.improvement_prompts import load_improvement_template

    return Showing(load_improvement_template("chat"), 50)


def test_it_is_prepared_once_and_again_where_anything_differs(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(ModelConfig(path="tiny"))
    read: list[object] = []
    original = inputs.load_examples

    def noted(*arguments: Any, **more: Any) -> Any:
        read.append(arguments)
        return original(*arguments, **more)

    monkeypatch.setattr(inputs, "load_examples", noted)

    def reads() -> int:
        before = len(read)
        load_pairs(None, None, tokenizer, config)
        return len(read) - before

    assert [reads(), reads()] == [1, 0]
    config.data.workers = 1  # changes no unit
    assert reads() == 0
    config.data.max_completion_length = 7
    assert [reads(), reads()] == [1, 0]
    config.data.path = str(tmp_path / "rows.jsonl")
    text = (tmp_path / "rows.jsonl").read_text()
    (tmp_path / "rows.jsonl").write_text(text.replace("It is 0.", "It is O."))
    assert [reads(), reads()] == [1, 0]
    tokenizer.chat_template = tokenizer.chat_template + "{# another #}"
    assert reads() == 1
    config.data.cache = False
    assert [reads(), reads()] == [1, 1]


def test_a_trainer_takes_the_same_steps_from_disk(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.model.path, config.data.eval_limit = "tiny", 12
    config.training = TrainingConfig(batch_size=4, max_steps=2, learning_rate=1e-3, save_steps=2, bf16=False)
    trainers: list[Any] = []
    for large in (100, 10**9):
        monkeypatch.setattr(preparation, "LARGE", large)
        config.data.cache = str(tmp_path / f"cache-{large}")
        trainer = DPOTrainer(config=config, folder=tmp_path / f"run-{large}")
        trainer.train()
        trainers.append(trainer)
    stored, kept = trainers
    assert isinstance(stored.train_units, StoredUnits) and isinstance(kept.train_units, list)
    for (name, found), (_, wanted) in zip(stored.model.named_parameters(), kept.model.named_parameters(), strict=True):
        assert found.equal(wanted), name
    measured = [(trainer.evaluate(), score_units(trainer, trainer.eval_units, margins)) for trainer in trainers]
    assert measured[0] == measured[1] and len(measured[0][1]) == 12
    stamps = [json.loads((tmp_path / f"run-{n}/checkpoints/checkpoint-2/run.json").read_text()) for n in (100, 10**9)]
    assert stamps[0]["examples"] == stamps[1]["examples"] != ""


def margins(model: nn.Module, piece: Sequence[Unit], batch: Batch) -> Tensor:
    return sum_by_completion(token_logps(model, batch), batch).view(-1, 2).diff().flatten()


def test_a_folder_that_cannot_be_written_is_named(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config.data.cache = str(tmp_path / "file")
    with pytest.raises(UserError, match="cannot keep the prepared data in .*data.cache=FOLDER"):
        load_pairs(None, None, load_tokenizer(ModelConfig(path="tiny")), config)


def test_no_unit_left_is_said_of_the_whole(config: RunConfig) -> None:
    config.data.max_prompt_length = 1
    with pytest.raises(UserError, match=r"no pair is left of 13\d: 13\d prompts over data.max_prompt_length=1"):
        load_pairs(None, None, load_tokenizer(ModelConfig(path="tiny")), config)
    assert not any((Path(config.data.cache) / "prepared").glob("*[!k]"))  # nothing but the lock
