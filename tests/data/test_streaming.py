"""A stream gives seeded blocks of units, goes on exactly where it stood, and refuses what needs the whole set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from transformers import TrainerCallback

from alignment.batching.groups import Unit
from alignment.batching.units import pair_units
from alignment.config import DataConfig, EvaluationConfig, ModelConfig, PeftConfig, RunConfig, TrainingConfig
from alignment.data import sources
from alignment.data.views import Pair
from alignment.errors import UserError
from alignment.models.loading import load_tokenizer
from alignment.trainers.dpo import DPOTrainer
from alignment.trainers.inputs import PAIRS, load_pairs
from alignment.trainers.kto import KTOTrainer
from alignment.trainers.streaming import UnitStream, streamed


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    for name, rows in (("a", range(9)), ("b", range(9, 14))):
        lines = [json.dumps({"prompt": f"{n}?", "chosen": "So." * (1 + n % 4), "rejected": "No."}) + "\n" for n in rows]
        lines.insert(2, "broken\n")
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    data = DataConfig(
        path=[str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")],
        eval_path=str(tmp_path / "b.jsonl"),
        streaming=True,
        shuffle_buffer=4,
    )
    training = TrainingConfig(batch_size=3, max_steps=12, token_budget=60, learning_rate=1e-3, bf16=False)
    return RunConfig(
        peft=PeftConfig(r=4, dropout=0.1),
        model=ModelConfig(path="tiny"),
        data=data,
        training=training,
        evaluation=EvaluationConfig(prompts=0),
    )


def stream_of(config: RunConfig) -> UnitStream:
    return streamed(config, load_tokenizer(config.model), PAIRS, {})


def prompts(units: list[Unit]) -> list[str]:
    tokenizer: Any = load_tokenizer(ModelConfig(path="tiny"))
    return [tokenizer.decode(unit.groups[0].prompt) for unit in units]


def test_a_pass_has_every_unit_once_shuffled_in_blocks(config: RunConfig) -> None:
    config.data.streaming, config.data.eval_path, config.data.eval_fraction = False, None, 0.0
    in_memory = load_pairs(None, None, load_tokenizer(config.model), config).train
    stream = stream_of(config)
    passes = [[stream.take() for _ in range(14)] for _ in range(2)]
    for units in passes:
        for block in (slice(0, 4), slice(4, 8), slice(8, 12), slice(12, 14)):  # the last ends with the pass
            assert sorted(unit.id for unit in units[block]) == sorted(unit.id for unit in in_memory[block])
    assert passes[0] != passes[1] and passes[0] != in_memory
    assert stream.counts["rows"] == 32 and stream.counts["skipped"] == 4 and stream.counts["pairs"] == 28
    config.seed = 1
    other = stream_of(config)
    assert [other.take() for _ in range(14)] != passes[0]


def test_it_goes_on_exactly_and_ranks_share_its_steps(config: RunConfig) -> None:
    whole = stream_of(config)
    steps = [whole.step(number, "shared", 0, 1) for number in range(12)]
    states = [json.loads(json.dumps(whole.state(number))) for number in range(13)]
    assert whole.position.turn == 2  # 36 units of 14 a pass
    for after in (0, 1, 4, 5, 11):
        for ranks in (1, 2):
            streams = [stream_of(config) for _ in range(ranks)]
            for stream in streams:
                stream.go_to(states[after])
            for number in range(after, 12):
                shares = [stream.step(number, "shared", rank, ranks) for rank, stream in enumerate(streams)]
                assert sorted(u.id for share in shares for u in share) == sorted(u.id for u in steps[number])
            assert streams[0].state(12) == states[12]
    loader = whole_loader(config, states[4])
    assert [[unit.id for unit in batch["units"]] for batch in loader] == [[u.id for u in step] for step in steps[4:]]


def whole_loader(config: RunConfig, state: dict[str, Any]) -> Any:
    from accelerate import skip_first_batches

    stream = stream_of(config)
    stream.go_to(state)
    return skip_first_batches(stream.loader(12, "shared", 0, 1), state["step"])


def test_a_hub_id_is_streamed(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"prompt": f"{n}?", "chosen": "So.", "rejected": "No."} for n in range(9)]
    asked: list[bool] = []

    def load(name: str, configuration: str | None, split: str, streaming: bool) -> datasets.IterableDataset:
        asked.append(streaming)
        return datasets.IterableDataset.from_generator(lambda: iter(rows))

    monkeypatch.setattr(sources, "load_from_hub", load)
    config.data.path = "owner/name"
    stream = stream_of(config)
    units = [stream.take() for _ in range(6)]
    again = stream_of(config)
    again.go_to({"step": 0, **vars(stream.position)})
    units += [again.take() for _ in range(3)]
    assert sorted(prompts(units)) == sorted(prompts(units_of(rows, config))) and asked == [True, True]


def units_of(rows: list[dict[str, str]], config: RunConfig) -> list[Unit]:
    turns = [[[{"role": role, "content": row[name]}] for role, name in NAMES] for row in rows]
    given = [Pair(str(number), *each) for number, each in enumerate(turns)]  # type: ignore[arg-type]
    return pair_units(given, load_tokenizer(config.model), config.data)[0]


NAMES = (("user", "prompt"), ("assistant", "chosen"), ("assistant", "rejected"))


def test_other_rows_are_noticed(config: RunConfig) -> None:
    stream = stream_of(config)
    for number in range(2):
        stream.step(number, "shared", 0, 1)
    state = stream.state(2)
    file = Path(config.data.path[0])
    file.write_text(file.read_text().replace("5?", "6?").replace("4?", "8?"))
    with pytest.raises(UserError, match="rows behind row 5 of source 1 are not those of the resumed run"):
        stream_of(config).go_to(state)


def test_a_part_is_the_part_of_the_whole_set(config: RunConfig) -> None:
    config.data.part = "rl"
    stream = stream_of(config)
    config.data.streaming, config.data.eval_path, config.data.eval_fraction = False, None, 0.0
    in_memory = load_pairs(None, None, load_tokenizer(config.model), config).train
    taken = [stream.take() for _ in in_memory]
    assert sorted(unit.id for unit in taken) == sorted(unit.id for unit in in_memory)


def test_a_stream_without_units_ends(config: RunConfig) -> None:
    config.data.max_prompt_length = 1
    with pytest.raises(UserError, match="no pair to train on in .*'prompt_too_long': "):
        stream_of(config).take()


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("training", "max_steps", None, "give training.max_steps"),
        ("data", "eval_path", None, "give data.eval_path, or data.eval_fraction=0"),
        ("data", "limit", 5, "leave out data.limit"),
        ("data", "path", {"a.jsonl": 1.0}, "a path or a list of paths"),
        ("data", "path", "-", "can be read only once"),
        ("reference", "when", "precompute", "reference.when=step is needed"),
    ],
)
def test_what_needs_the_whole_set_is_refused(config: RunConfig, section: str, key: str, value: Any, said: str) -> None:
    setattr(getattr(config, section), key, value)
    with pytest.raises(UserError, match=f"data.streaming=true: .*{said}"):
        load_pairs(None, None, load_tokenizer(config.model), config)


def test_a_method_that_needs_it_is_refused(config: RunConfig, tmp_path: Path) -> None:
    config.method, config.loss = "kto", {"name": "kto"}
    with pytest.raises(UserError, match="data.streaming=true: kto needs its whole set before the first step"):
        KTOTrainer(config=config, folder=tmp_path / "run")


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step == self.step


def test_a_resumed_run_ends_as_the_whole_one(config: RunConfig, tmp_path: Path) -> None:
    whole: Any = DPOTrainer(config=config, folder=tmp_path / "whole")
    whole.train()
    config.training.save_steps = 5  # steps 6 and 7 are taken twice
    DPOTrainer(config=config, folder=tmp_path / "run", callbacks=[StopAt(7)]).train()
    again: Any = DPOTrainer(config=config, folder=tmp_path / "run")
    again.resume(tmp_path / "run" / "checkpoints" / "checkpoint-5")
    assert again.state.global_step == 12 and again.passes(12) == 2.0
    for (name, wanted), (_, found) in zip(whole.model.named_parameters(), again.model.named_parameters(), strict=True):
        assert wanted.equal(found), name
    metrics = [(tmp_path / each / "metrics.jsonl").read_text().splitlines() for each in ("whole", "run")]
    losses = [[json.loads(line)["loss"] for line in lines] for lines in metrics]
    assert losses[0] == losses[1] and len(losses[0]) == 12
