"""What is read back from a run folder, a checkpoint, a cache or a model folder that others may have written."""

from __future__ import annotations

import functools
import io
import json
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.font_manager
from hypothesis import strategies as st
from rich.console import Console

from alignment.config import ModelConfig, RunConfig
from alignment.evaluation.card import write_model_card
from alignment.evaluation.compare import compare
from alignment.evaluation.compare_page import write_comparison
from alignment.evaluation.frontier_runs import read_sweep
from alignment.evaluation.report import write_report
from alignment.evaluation.summary import read_samples, read_summary, render_summary
from alignment.models.loading import BUILTIN_FOLDER, adapters_of, config_of_run, load_model, load_tokenizer, resolve
from alignment.models.scores import CARD, Scorer
from alignment.resumable import ResumableFile
from alignment.storage import ContentStore
from alignment.trainers import checkpoints, same_run
from tests.evaluation.fake_run import make_run
from tests.fuzz.harness import Target
from tests.fuzz.hostile import dumped, mutated, mutated_bytes, values

matplotlib.get_configdir()  # made when it is first asked for, which is nobody's fault
TINY = BUILTIN_FOLDER / "tiny"


@functools.cache
def _run_files() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder) / "run", samples=4, steps=6, eval_steps=3)
        return {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()}


def _console() -> Console:
    return Console(file=io.StringIO(), width=100)


def _run_folder(name: str, seeds: list[bytes]) -> Callable[[Any, Path], object]:
    def check(content: bytes, folder: Path) -> object:
        for other in ("one", "two"):
            (Path(other) / "model").mkdir(parents=True)
            for file, sound in _run_files().items():
                (Path(other) / file).write_bytes(content if (file, other) == (name, "one") else sound)
        summary = read_summary("one")
        render_summary(summary, _console())
        read_samples("one")
        write_report("one")
        write_model_card("one")
        found = compare(["one", "two"], _console())
        write_comparison(found, Path("page.html"))
        read_sweep(["one", "two"])
        return None

    return check


def _jsons(name: str) -> Any:
    content = _run_files()[name]
    if name.endswith(".jsonl"):
        rows = [json.loads(line) for line in content.splitlines()]
        changed = mutated([rows]).map(
            lambda found: b"\n".join(map(dumped, found)) if isinstance(found, list) else dumped(found)
        )
    elif name.endswith(".json"):
        changed = mutated([json.loads(content)]).map(dumped)
    else:
        import yaml

        from tests.fuzz.asked_targets import _yaml

        changed = mutated([yaml.safe_load(content)]).map(_yaml)
    return changed | mutated_bytes([content])


def _manifest(content: bytes, folder: Path) -> object:
    place = Path("run/checkpoints/checkpoint-3")
    place.mkdir(parents=True)
    (place / "weights").write_bytes(b"abc")
    (place / checkpoints.MANIFEST).write_bytes(content)
    checkpoints.whole_checkpoints(Path("run"))
    return checkpoints.find_resume("run")


def _stamp(content: bytes, folder: Path) -> object:
    Path(same_run.FILE).write_bytes(content)
    return same_run.check_settings(Path("."), RunConfig(), 1), same_run.check_run(Path("."), RunConfig(), [], 1)


def _unfinished(content: bytes, folder: Path) -> object:
    """The note beside a file of `align sample` or `align label` that goes on."""
    Path("out.jsonl").write_bytes(b"{}\n")
    Path("out.jsonl.json").write_bytes(content)
    file = ResumableFile(Path("out.jsonl"), {"a": 1})
    try:
        file.add([{"b": "\ud800"}], Counter(rows=1))
    finally:
        file.close()
    return None


def _cache(content: bytes, folder: Path) -> object:
    Path("store.sqlite3").write_bytes(content)
    store = ContentStore(Path("store.sqlite3"), "values")
    store.get([b"a", b"b"])
    store.put({b"b": 1})
    return None


def _cached_value(content: bytes, folder: Path) -> object:
    with sqlite3.connect("store.sqlite3") as store:
        store.execute("CREATE TABLE entries (key BLOB PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
        store.execute("INSERT INTO entries VALUES (?, ?)", (b"a", content))
    store.close()
    return ContentStore(Path("store.sqlite3"), "values").get([b"a"])


@functools.cache
def _sound_store() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        ContentStore(Path(folder) / "s", "values").put({bytes([n]): {"n": n} for n in range(40)})
        return (Path(folder) / "s").read_bytes()


def _card(content: bytes, folder: Path) -> object:
    Path(CARD).write_bytes(content)
    return Scorer.load(Path("."))


def _adapter_note(content: bytes, folder: Path) -> object:
    Path("adapter").mkdir()
    Path("adapter/adapter_config.json").write_bytes(content)
    return adapters_of(resolve("adapter"))


def _run_note(content: bytes, folder: Path) -> object:
    Path("adapter").mkdir()
    Path("adapter/adapter_config.json").write_bytes(b"{}")
    Path("adapter/config.yaml").write_bytes(content)
    if b"smollm2" in content.lower():  # the embedded model would be unpacked into the cache first
        return None
    return config_of_run(Path("adapter")), adapters_of("adapter")


def _model(name: str) -> Callable[[Any, Path], object]:
    def check(content: bytes, folder: Path) -> object:
        shutil.copytree(TINY, "model")
        Path("model", name).chmod(0o644)
        Path("model", name).write_bytes(content)
        config = ModelConfig(path="model")
        load_tokenizer(config)
        load_model(config)
        return None

    return check


def _small(name: str) -> bytes:
    return (TINY / name).read_bytes()


def _model_json(name: str) -> Any:
    return mutated([json.loads(_small(name))]).map(dumped) | mutated_bytes([_small(name)])


def _cut_weights() -> Any:
    whole = _small("model.safetensors")
    header = int.from_bytes(whole[:8], "little") + 8
    places = st.integers(0, len(whole)) | st.integers(0, header)
    return places.map(lambda at: whole[:at]) | mutated_bytes([whole[:header]]).map(lambda head: head + whole[header:])


def _state(name: str, read: Callable[[Path], object]) -> Callable[[Any, Path], object]:
    def check(content: bytes, folder: Path) -> object:
        Path(name).write_bytes(content)
        return read(Path(name))

    return check


STAMP = {"processes": 1, "config": asdict(RunConfig()), "examples": ""}
NOTE = {"settings": {"a": 1}, "done": {"batches": 1, "bytes": 3, "totals": {"rows": 1}}}
SCORER = {"kind": "reward", "objectives": ["a"], "template": "chat"}
ADAPTER = {"base_model_name_or_path": "tiny", "peft_type": "LORA", "r": 4}
TARGETS = (
    *(
        Target(f"run folder: {name}", "run folders", _jsons(name), _run_folder(name, []), slow=True)
        for name in ("summary.json", "config.yaml", "metrics.jsonl", "samples.jsonl")
    ),
    Target(
        "checkpoint: complete.json",
        "checkpoints",
        mutated([{"step": 3, "files": {"weights": 3}}]).map(dumped)
        | values.map(dumped)
        | mutated_bytes([b'{"files": {"weights": 3}}']),
        _manifest,
    ),
    Target(
        "checkpoint: run.json", "checkpoints", mutated([STAMP]).map(dumped) | mutated_bytes([dumped(STAMP)]), _stamp
    ),
    Target(
        "unfinished output: note",
        "checkpoints",
        mutated([NOTE]).map(dumped) | mutated_bytes([dumped(NOTE)]),
        _unfinished,
    ),
    Target("cache: file", "caches", st.deferred(lambda: mutated_bytes([_sound_store()], most=8)), _cache),
    Target("cache: value", "caches", mutated_bytes([b'{"a": 1}', b"[" * 100000]), _cached_value),
    Target("model: alignment card", "models", mutated([SCORER]).map(dumped) | values.map(dumped), _card),
    Target("model: adapter_config.json", "models", mutated([ADAPTER]).map(dumped) | values.map(dumped), _adapter_note),
    Target("model: config.yaml of its run", "models", st.deferred(lambda: _jsons("config.yaml")), _run_note),
    Target("model: config.json", "models", _model_json("config.json"), _model("config.json"), slow=True),
    Target(
        "model: tokenizer_config.json",
        "models",
        _model_json("tokenizer_config.json"),
        _model("tokenizer_config.json"),
        slow=True,
    ),
    Target(
        "model: generation_config.json",
        "models",
        _model_json("generation_config.json"),
        _model("generation_config.json"),
        slow=True,
    ),
    Target("model: safetensors, cut", "models", _cut_weights(), _model("model.safetensors"), slow=True),
)
