"""configs/launch/: accelerate's own loader and launcher take every file, and the CPU ones run."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import ClusterConfig
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from torch.distributed.fsdp import MixedPrecisionPolicy

from alignment.launch.assets import load_yaml
from tests.launching import ROOT, environment, free_port

FOLDER = ROOT / "configs" / "launch"
FILES = sorted(FOLDER.glob("*.yaml"))
NAMES = {"cpu", "cpu2", "gpu", "ddp", "fsdp2", "fsdp2_lora", "zero2", "zero3", "machines"}


def launched(file: Path, *options: str) -> Any:
    """The arguments of `accelerate launch --config_file FILE OPTIONS train.py`, as the launcher completes them."""
    words = ["--config_file", str(file), *options, "train.py", "recipe=dpo"]
    return _validate_launch_command(launch_command_parser().parse_args(words))[0]


def line_of(file: Path) -> list[str]:
    """The words of the launch line that the file begins with, up to the script."""
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# accelerate launch --config_file ")
    words = shlex.split(first.removeprefix("# accelerate launch ").replace("--machine_rank K", "--machine_rank 1"))
    return words[: words.index("train.py")]


def test_all_are_there() -> None:
    assert {file.stem for file in FILES} == NAMES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_accelerate_knows_every_key(file: Path) -> None:
    ClusterConfig.from_yaml_file(str(file))  # refuses unknown keys of the file itself
    known = vars(launch_command_parser().parse_args(["train.py"]))
    content = load_yaml(file)
    for section in ("fsdp_config", "deepspeed_config"):  # unknown ones in these are dropped silently
        assert set(content.get(section, {})) <= set(known)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_first_line_is_a_launch_line_of_the_file(file: Path) -> None:
    words = line_of(file)
    assert (ROOT / words[1]) == file
    arguments = launched(file, *words[2:])
    content = load_yaml(file)
    kind = content["distributed_type"]
    assert (arguments.multi_gpu, arguments.use_fsdp, arguments.use_deepspeed) == (
        kind == "MULTI_GPU",
        kind == "FSDP",
        kind == "DEEPSPEED",
    )
    assert bool(arguments.use_cpu) == (file.stem in ("cpu", "cpu2"))
    assert arguments.num_processes == (8 if "--num_processes" in words else content["num_processes"])


@pytest.mark.parametrize("name", ["fsdp2", "fsdp2_lora"])
def test_fsdp_takes_the_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import FullyShardedDataParallelPlugin

    for key, value in prepare_multi_gpu_env(launched(FOLDER / f"{name}.yaml")).items():
        if key.startswith("FSDP_"):
            monkeypatch.setenv(key, value)
    plugin = FullyShardedDataParallelPlugin(mixed_precision_policy="bf16")
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    assert isinstance(plugin.mixed_precision_policy, MixedPrecisionPolicy)
    assert plugin.state_dict_type.name == "SHARDED_STATE_DICT" and not plugin.cpu_ram_efficient_loading


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_takes_the_settings(stage: int) -> None:
    arguments = launched(FOLDER / f"zero{stage}.yaml")
    arguments.deepspeed_fields_from_accelerate_config = ""  # as `deepspeed_launcher` sets it
    arguments.main_process_port = free_port()
    _, found = prepare_deepspeed_cmd_env(arguments)
    assert found["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == str(stage)
    assert found["ACCELERATE_GRADIENT_ACCUMULATION_STEPS"] == "1"
    if stage == 3:
        assert found["ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"] == "true"
        assert found["ACCELERATE_DEEPSPEED_ZERO3_INIT"] == "false"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpu", "cpu2"])
def test_the_cpu_files_run(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(FOLDER / f"{name}.yaml")]
    command += ["--main_process_port", str(free_port()), "train.py", "recipe=dpo", "model=tiny", "training.max_steps=2"]
    command += ["evaluation.prompts=0", f"output_dir={tmp_path / 'run'}"]
    clean = {key: value for key, value in environment().items() if key != "ACCELERATE_USE_CPU"}
    done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (tmp_path / "run" / "summary.json").is_file()
    assert os.listdir(tmp_path / "run" / "model")
