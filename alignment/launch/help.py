"""What `--help` prints: recipes, groups, commands to copy. No colour, at most 100 columns, no heavy import."""

from __future__ import annotations

import textwrap

from alignment.launch.assets import Catalogue, description

WIDTH = 100
OWN = {
    "model": "any other: model.path=FOLDER|HUB-ID|FILE.gguf",
    "data": "your own: data.path=FILE|FOLDER|GLOB|HUB-ID",
    "feedback": "your own: feedback=FILE.yaml|FILE.py:THING",
}

OPTIONS = """\
  key=value           any setting by its dotted key, such as training.learning_rate=1e-5
  --cfg job           print the composed configuration and stop (--resolve fills in ${...})
  -m, --multirun      run every combination of key=a,b one after the other, each in a fresh process
  --config-dir DIR    your own recipes/, model/, data/ and peft/ files beside the shipped ones
  traceback=true      show the Python traceback of an error
  -h, --help          this text
"""

EXAMPLES = """\
  accelerate launch {script} recipe=dpo
  {run} recipe=dpo model=tiny
  {run} recipe=dpo training.learning_rate=1e-5 loss.beta=0.2
  {run} recipe=dpo model.path=my/model data.path=my/pairs.jsonl output_dir=runs/first
  {run} -m recipe=dpo model=tiny loss.beta=0.1,0.5 seed=0,1
  {run} recipe=dpo --cfg job
"""


def help_text(files: Catalogue, run: str) -> str:
    """The whole text. `run` is how this program was called: `python train.py` or `align train`."""
    script = "train.py" if run.endswith("train.py") else "-m alignment train"
    recipes = "\n".join(_entry(name, description(path)) for name, path in files.recipes.items())
    groups = "\n".join(_group(name, list(options)) for name, options in files.groups.items())
    return (
        f"Align a causal language model with preferences.\n\n  {run} recipe=NAME [key=value ...] [options]\n\n"
        f"Recipes: recipe=NAME, or recipe=path/to/FILE.yaml\n{recipes}\n\n"
        f"Groups\n{groups}\n\nOptions\n{OPTIONS}\nExamples\n{EXAMPLES.format(run=run, script=script)}"
    )


def _entry(name: str, text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=f"  {name:<18}  ", subsequent_indent=" " * 22)


def _group(name: str, options: list[str]) -> str:
    line = _entry(f"{name}=NAME", ", ".join(options))
    return f"{line}\n{' ' * 22}{OWN[name]}" if name in OWN else line
