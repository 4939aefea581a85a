"""Reference log-probs on disk: found again by content, never for another reference, and never fatal."""

from __future__ import annotations

import multiprocessing
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from alignment.data.views import Pair
from alignment.errors import UserError
from alignment.launch.entry import main
from alignment.models.reference import FrozenCopy, build_reference
from alignment.models.reference_cache import FILE, ReferenceCache, fingerprint, key
from alignment.trainers import dpo
from alignment.trainers.dpo import DPOTrainer
from tests.end_to_end.data import write_pairs
from tests.launching import launch
from tests.trainers.pairs import some_pairs
from tests.trainers.test_dpo import rows, settings


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of completions of every pass through the reference, as they happen."""
    found: list[int] = []
    sums = dpo.reference_sums

    def counted(*args, **kwargs):
        result = sums(*args, **kwargs)
        found.append(len(result))
        return result

    monkeypatch.setattr(dpo, "reference_sums", counted)
    return found


def trainer_of(
    folder: Path,
    cache: Path | bool,
    pairs: list[Pair] | None = None,
    loss: dict | None = None,
    peft: str = "lora",
    when: str = "precompute",
    seed: int = 0,
    **training,
) -> DPOTrainer:
    config = settings(max_steps=2, **training)
    config.seed, config.loss, config.peft.method = seed, loss or {"name": "sigmoid", "beta": 0.1}, peft
    config.reference.when, config.reference.cache = when, cache if isinstance(cache, bool) else str(cache)
    return DPOTrainer(config=config, train=pairs or some_pairs(), eval=some_pairs(1), folder=folder)


@pytest.fixture
def filled(tmp_path: Path, scored: list[int]) -> Path:
    """A cache with the sums of `some_pairs()` under the base of `tiny`."""
    cache = tmp_path / "cache"
    trainer_of(tmp_path / "filled", cache).train()
    assert sum(scored) == 12  # each answer of the six pairs once, and none in the steps
    scored.clear()
    return cache


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 3},
        {"loss": {"name": "sigmoid", "beta": 0.7}},
        {"loss": {"name": "ipo", "beta": 0.1, "length": "mean"}},
        {"learning_rate": 1e-2, "token_budget": 60},
        {"layout": "padded"},
        {"peft": "none"},  # a frozen copy of the same weights
    ],
    ids=str,
)
def test_found_again(changes: dict, filled: Path, scored: list[int], tmp_path: Path, capsys) -> None:
    trainer_of(tmp_path / "again", filled, **changes).train()
    assert scored == []
    assert "reference log-probs: 6 of 6 pairs from the cache" in capsys.readouterr().out


def test_of_an_edited_data_set_only_new_rows_are_scored(
    filled: Path, scored: list[int], tmp_path: Path, capsys
) -> None:
    pairs = some_pairs(9)[::-1]  # three more, in another order
    pairs[0] = replace(pairs[0], p_chosen=0.8)
    pairs[-1] = replace(pairs[-1], rejected=[{"role": "assistant", "content": "A pear, of course."}])
    trainer_of(tmp_path / "again", filled, pairs).train()
    assert sum(scored) == 8  # three new pairs and the edited one
    assert "reference log-probs: 5 of 9 pairs from the cache" in capsys.readouterr().out


def test_other_weights_precision_or_token_weights_miss(filled: Path, scored: list[int], tmp_path: Path) -> None:
    other = trainer_of(tmp_path / "weights", filled)
    with torch.no_grad():
        other.model.get_base_model().get_input_embeddings().weight[5, 3] += 1e-3
    other.train()
    assert sum(scored) == 12
    scored.clear()
    trainer_of(tmp_path / "autocast", filled, bf16=True).train()
    assert sum(scored) == 12
    scored.clear()
    # LD-DPO weighs the tokens of the longer answer, so all six pairs have one new sum; the second run finds it.
    for expected in (12, 0):
        trainer_of(tmp_path / f"ld{expected}", filled, loss={"name": "sigmoid", "beta": 0.1, "ld_alpha": 0.5}).train()
        assert sum(scored) == expected
        scored.clear()


def test_fingerprint_is_of_weights_and_architecture(tmp_path: Path) -> None:
    lora = trainer_of(tmp_path / "lora", False, seed=1)
    plain = trainer_of(tmp_path / "plain", False, peft="none").reference
    assert isinstance(plain, FrozenCopy) and lora.reference is not None
    mark = fingerprint(plain, "no")
    assert fingerprint(lora.reference, "no") == mark and fingerprint(plain, "bf16") != mark
    with torch.no_grad():  # what is trained is not the reference
        for name, parameter in lora.model.named_parameters():
            parameter.add_(1.0 if "lora_" in name else 0.0)
    assert fingerprint(lora.reference, "no") == mark
    theta = plain.model.config.rope_parameters["rope_theta"]
    plain.model.config.rope_parameters["rope_theta"] = 2 * theta  # the same weights count positions differently
    assert fingerprint(plain, "no") != mark
    plain.model.config.rope_parameters["rope_theta"] = theta
    plain.model.config._name_or_path = "elsewhere"
    assert fingerprint(plain, "no") == mark
    assert fingerprint(build_reference(plain.model.bfloat16(), lora.config.reference), "no") != mark


def test_key_is_of_all_that_the_sum_depends_on() -> None:
    first = key(b"mark", (1, 2), (3, 4))
    assert first == key(b"mark", [1, 2], [3, 4], [1.0, 1.0])
    others = [
        key(b"other", (1, 2), (3, 4)),
        key(b"mark", (1,), (2, 3, 4)),
        key(b"mark", (1, 2, 3), (4,)),
        key(b"mark", (1, 2), (3, 5)),
        key(b"mark", (1, 2), (3, 4), [1.0, 0.5]),
        key(b"mark", (1, 2), (3, 4), [1.0, 0.25]),
    ]
    assert len({first, *others}) == 7


@pytest.mark.parametrize("loss", [{"name": "sigmoid", "beta": 0.1}, {"name": "sigmoid", "beta": 0.1, "ld_alpha": 0.3}])
def test_cached_sums_and_curves_equal_scoring_in_the_step(loss: dict, tmp_path: Path, scored: list[int]) -> None:
    cache = tmp_path / "cache"
    step = trainer_of(tmp_path / "step", False, loss=loss, when="step", token_budget=100)
    for unit in step.train_units:  # a batch of one, against the batches that the cache was filled from
        batch = dpo.pack(unit.groups, step.layout, step.pad_id)
        step.reference_cache[unit.groups] = step.reference_logps(step.model, [unit], batch)
    alone, step.reference_cache = step.reference_cache, {}
    step.train()
    curves = [rows(tmp_path / "step", "loss")]
    for name in ("first", "second"):
        scored.clear()
        trainer = trainer_of(tmp_path / name, cache, loss=loss)
        trainer.train()
        assert sum(scored) == (12 if name == "first" else 0)
        for groups, sums in alone.items():
            assert trainer.reference_cache[groups] == pytest.approx(sums.tolist(), rel=1e-6)
        curves.append(rows(tmp_path / name, "loss"))
    assert curves[1] == pytest.approx(curves[0], abs=1e-5) and curves[2] == curves[1]


@pytest.mark.parametrize("damage", ["not a database", "overwritten"])
def test_a_damaged_cache_is_set_aside(damage: str, filled: Path, scored: list[int], tmp_path: Path, capsys) -> None:
    file = filled / FILE
    content = b"not a database " * 1000 if damage == "not a database" else file.read_bytes()[:4096] + b"\xff" * 4096
    file.write_bytes(content)
    for expected in (12, 0):
        trainer_of(tmp_path / f"run{expected}", filled).train()
        assert sum(scored) == expected
        scored.clear()
    said = [line for line in capsys.readouterr().out.splitlines() if "damaged" in line]
    assert len(said) == 1 and str(file) in said[0]
    assert Path(f"{file}.damaged").read_bytes() == content


def test_a_cache_that_cannot_be_used_is_left_out(tmp_path: Path, scored: list[int], capsys) -> None:
    (tmp_path / "file").write_text("in the way")
    trainer_of(tmp_path / "run", tmp_path / "file").train()
    assert sum(scored) == 12
    assert capsys.readouterr().out.count("going on without the cache") == 1
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_locked_cache_is_left_out(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("alignment.storage.WAIT_SECONDS", 0.05)
    holder = sqlite3.connect(filled / FILE)
    holder.execute("BEGIN EXCLUSIVE")
    trainer_of(tmp_path / "run", filled).train()
    holder.rollback()
    assert "database is locked" in capsys.readouterr().out
    assert not list(filled.glob("*.damaged"))


def test_without_a_cache_nothing_is_kept(
    tmp_path: Path, scored: list[int], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "default"))
    for expected in (12, 12):
        scored.clear()
        trainer_of(tmp_path / "off", False).train()
        assert sum(scored) == expected
    assert not (tmp_path / "default").exists() and "from the cache" not in capsys.readouterr().out
    trainer_of(tmp_path / "on", True).train()
    assert (tmp_path / "default" / FILE).is_file()
    config = settings()
    config.reference.cache = 3
    with pytest.raises(UserError, match="reference.cache=3: true, false or a folder is needed"):
        DPOTrainer(config=config, train=some_pairs(), eval=some_pairs(), folder=tmp_path)


def test_scored_in_pieces_that_are_kept_one_by_one(
    tmp_path: Path, scored: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dpo, "SCORED_AT_ONCE", 4)
    put = ReferenceCache.put

    def put_and_die(self: ReferenceCache, values: dict) -> None:
        put(self, values)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ReferenceCache, "put", put_and_die)
        trainer_of(tmp_path / "stopped", tmp_path / "cache").train()
    assert sum(scored) == 8
    trainer_of(tmp_path / "again", tmp_path / "cache").train()
    assert sum(scored) == 12


def _write_many(folder: Path, writer: int) -> None:
    cache = ReferenceCache(folder)
    for number in range(40):
        cache.put({f"{writer} {number}".encode(): float(number), f"both {number}".encode(): float(number)})
        assert cache.get([f"{writer} {number}".encode(), b"none"]) == [float(number), None]


def test_processes_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(tmp_path, writer)) for writer in range(3)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(60)
    assert [process.exitcode for process in writers] == [0, 0, 0]
    keys = [f"{writer} {number}".encode() for writer in (0, 1, 2, "both") for number in range(40)]
    assert ReferenceCache(tmp_path).get(keys) == [float(number) for _ in range(4) for number in range(40)]


def test_what_is_not_finite_is_not_kept(tmp_path: Path) -> None:
    cache = ReferenceCache(tmp_path)
    cache.put({b"a": float("-inf"), b"b": float("nan"), b"c": -1.5})
    assert cache.get([b"a", b"b", b"c"]) == [None, None, -1.5]


def test_what_two_processes_score_one_finds(tmp_path: Path, scored: list[int], capsys) -> None:
    data, cache = write_pairs(tmp_path / "train.jsonl", count=9), tmp_path / "cache"
    settings = ["recipe=dpo", "model=tiny", "evaluation.prompts=0", "training.max_steps=2", "training.batch_size=4"]
    settings += [f"data.path={data}", "data.eval_fraction=0", "training.bf16=false"]
    settings += ["reference.when=precompute", f"reference.cache={cache}"]
    done = launch(["train.py", *settings, f"output_dir={tmp_path / 'two'}"], processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("reference log-probs: 0 of 9 pairs from the cache") == 1
    assert main([*settings, f"output_dir={tmp_path / 'one'}"]) == 0
    assert "reference log-probs: 9 of 9 pairs from the cache" in capsys.readouterr().out and scored == []
    assert rows(tmp_path / "one", "loss") == pytest.approx(rows(tmp_path / "two", "loss"), abs=1e-5)
