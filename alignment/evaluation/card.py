"""The model card: model/README.md, with the front matter that model hubs read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from alignment.errors import UserError
from alignment.evaluation.files import write_atomically
from alignment.evaluation.movement import FLUENCY_LIMIT
from alignment.evaluation.provenance import NOT_STATED
from alignment.evaluation.row import Row, section
from alignment.evaluation.summary import read_config, read_summary
from alignment.evaluation.table import command, dotted, flat, rows
from alignment.evaluation.text import decimal, number, visible

# The hub id behind a built-in model's name; `tiny` is on no hub.
_HUB_IDS = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}
# method: what the model is, and what it learned from. Any other method aligns a policy with preferences.
_SCORING = {"reward": "a reward model", "preference_model": "a preference model", "pit_gap": "a gap reward model"}
_ONLINE = ("cut_online", "expert_iteration", "nash_md", "online_dpo", "p3o", "pit", "policy_gradient", "ppo")
_NAMES = {
    "cut_online": "CUT (online)",
    "nash_md": "Nash-MD",
    "online_dpo": "online DPO",
    "expert_iteration": "expert iteration",
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def write_model_card(folder: Path | str, model_folder: Path | None = None) -> Path:
    """Write README.md for the run in `folder` from its summary and configuration; returns its path.

    It goes into the run's model/, or into `model_folder`, whose files say whether it is an adapter or a whole model.
    Keys of the front matter (base_model, datasets) are given only where they are known as hub ids: a path of the
    machine that trained means nothing to a reader.
    """
    folder = Path(folder)
    summary, config = read_summary(folder), read_config(folder)
    model_folder = model_folder or folder / "model"
    if not model_folder.is_dir():
        raise UserError(f"no folder {model_folder}: there is no model to write a card for")
    card = ModelCard(f"---\n{_front_matter(summary, config, model_folder).to_yaml()}\n---\n\n{_body(summary, config)}")
    return write_atomically(model_folder / "README.md", str(card))


def _front_matter(summary: Mapping[str, Any], config: Mapping[str, Any], model_folder: Path) -> ModelCardData:
    adapter = (model_folder / "adapter_config.json").is_file()
    method = str(summary.get("method", config.get("method", "dpo")))
    return ModelCardData(
        base_model=_hub_id(section(config, "model").get("path")),
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-classification" if method in _SCORING else "text-generation",
        tags=["alignment-toolkit", "preference-alignment", visible(method), *(["lora"] if adapter else [])],
        datasets=_datasets(section(config, "data").get("path")) or None,
    )


def _hub_id(path: Any) -> str | None:
    """`path` as a hub id, or None where it is a file, a folder or a name of ours."""
    text = str(path or "")
    text = _HUB_IDS.get(text, text)
    return text if _HUB_ID.fullmatch(text) and not Path(text).exists() else None


def _datasets(path: Any) -> list[str]:
    paths = list(path) if isinstance(path, Mapping) else [path]
    return [found for entry in paths if (found := _hub_id(entry)) is not None]


def _body(summary: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    base = _shown_path(section(config, "model").get("path") or summary.get("model"))
    data = section(config, "data").get("path")
    sources = list(data) if isinstance(data, Mapping) else [data]
    method = str(summary.get("method", config.get("method", "dpo")))
    became, learned_from = _what_it_is(method, config, ", ".join(_md(_shown_path(source)) for source in sources))
    sections = [
        f"# {_md(summary.get('model', 'model'))}, {became}",
        f"{_md(base)} trained on {learned_from} with the "
        f"recipe {_md(summary.get('recipe', 'custom'))} of alignment-toolkit, seed {_md(summary.get('seed', 0))}.",
        _md(config.get("description") or ""),
        "## Results",
        _results(rows(summary)),
        "## Data",
        _sources(section(summary, "provenance")),
        _pairs_table(("count", ""), flat(section(summary, "data"))) or "No counts were recorded.",
        "## How it was made",
        "```sh\n" + command(summary).replace("```", "` ` `") + "\n```",
        _made_with(summary, config),
        _settings(config),
        _pairs_table(("package", "version"), flat(section(summary, "versions"))),
        "## Limits",
        _limits(summary, method, config),
    ]
    return "\n\n".join(part for part in sections if part) + "\n"


def _what_it_is(method: str, config: Mapping[str, Any], sources: str) -> tuple[str, str]:
    """What the model became, and what it was trained on, in words."""
    name = _NAMES.get(method, method.upper())
    if method in _SCORING:
        return f"{_SCORING[method]}: it scores answers and writes none", f"preferences ({sources})"
    if method in ("cut", "ilf"):
        return f"aligned with {name}", f"answers with written judgments ({sources})"
    if method == "sft":
        return f"fine-tuned with {name}", f"answers to imitate ({sources})"
    if method == "pit_sft":
        return "an improver of given answers, fine-tuned (PIT, stage 1)", f"better answers to imitate ({sources})"
    if method in _ONLINE:
        if method == "policy_gradient":
            name = str(section(config, "loss").get("name", "policy gradients")).upper()
        return f"aligned with {_md(name)}", f"its own answers to prompts ({sources}), judged by {_feedback(config)},"
    return f"aligned with {_md(name)}", f"preferences ({sources})"


def _feedback(config: Mapping[str, Any]) -> str:
    return _md(_shown_path(section(config, "feedback").get("name") or "a feedback object of its own"))


def _shown_path(path: Any) -> str:
    """A hub id or a built-in's name as it stands; of a local path the last part alone."""
    text = str(path or "a model")
    return text if _hub_id(text) else (Path(text).name or text)


def _results(lines: list[Row]) -> str:
    table = ["| | before | after | difference | 95 % interval |", "|---|--:|--:|--:|--:|"]
    table += [
        "| " + " | ".join(_md(cell) for cell in (row.label, row.before, row.after, row.difference, row.interval)) + " |"
        for row in lines
    ]
    notes = [f"- {_md(row.label)}: {_md(row.reading)}" for row in lines if row.reading]
    return "\n".join(table) + ("\n\n" + "\n".join(notes) if notes else "")


def _pairs_table(heading: tuple[str, str], pairs: Any) -> str:
    lines = [f"| {_md(name)} | {_md(value)} |" for name, value in pairs]
    return "\n".join([f"| {heading[0]} | {heading[1]} |", "|---|--:|", *lines]) if lines else ""


def _sources(known: Mapping[str, Any]) -> str:
    """The data sets by name, with their licences where a card states one."""
    sources = known.get("sources")
    entries = [each for each in sources if isinstance(each, Mapping)] if isinstance(sources, list) else []
    named = [(_shown_path(each.get("path")), each.get("licence") or NOT_STATED) for each in entries]
    return _pairs_table(("data set", "licence"), named)


def _made_with(summary: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Recipe, base model, who judged, and the toolkit's version and commit."""
    known = section(summary, "provenance")
    base, toolkit = section(known, "base"), section(known, "toolkit")
    lines = [("recipe", summary.get("recipe", "custom"))]
    if base:
        licence = base.get("licence") or NOT_STATED
        lines.append(("base model", f"{_shown_path(base.get('path'))}, licence: {licence}"))
    for key, words in (("feedback", "learned from the judgment of"), ("score", "scored by")):
        names = known.get(key)
        if isinstance(names, list) and names:
            lines.append((words, ", ".join(map(_judge, names))))
    if toolkit.get("version"):
        lines.append(("alignment-toolkit", toolkit["version"]))
    if toolkit.get("commit"):
        lines.append(("commit", f"{toolkit['commit']}{', with changed files' if toolkit.get('changed') else ''}"))
    return _pairs_table(("made with", ""), lines)


def _judge(name: Any) -> str:
    """`judge_local (model)`: of a model in a local folder the last part alone."""
    found = re.fullmatch(r"([^()]*) \((.*)\)", str(name))
    return f"{found[1]} ({_shown_path(found[2])})" if found else str(name)


def _settings(config: Mapping[str, Any]) -> str:
    """The settings that matter most, as one table; the whole of them are in the run's config.yaml."""
    picked = {
        "loss": section(config, "loss"),
        "model": {key: section(config, "model").get(key) for key in ("dtype", "quantization")},
        "peft": {key: section(config, "peft").get(key) for key in ("method", "r", "alpha")},
        "training": {
            key: section(config, "training").get(key)
            for key in ("learning_rate", "batch_size", "epochs", "max_steps", "optimizer", "scheduler", "bf16")
        },
    }
    if config.get("method") in _ONLINE:
        keys = ("prompts", "completions", "epochs", "max_new_tokens", "temperature")
        picked["rollout"] = {key: section(config, "rollout").get(key) for key in keys}
    known = {
        group: {key: value for key, value in values.items() if value is not None} for group, values in picked.items()
    }
    return _pairs_table(("setting", "value"), dotted(known))


def _limits(summary: Mapping[str, Any], method: str, config: Mapping[str, Any]) -> str:
    score, fluency = section(summary, "score"), section(summary, "fluency")
    learned = "Trained on preferences alone: it learned which answers are preferred, not which are true."
    if method in _SCORING:
        learned += " A policy that is trained to score well will find what it gets wrong."
    elif method in ("sft", "pit_sft"):
        learned = "Trained to imitate given answers: it learned how they are written, with their errors."
    elif method in _ONLINE:
        learned = f"Trained to please one judge ({_feedback(config)}): what that overlooks, it was free to do."
    points = [
        f"{learned} It keeps the base model's errors, biases and licence.",
        "One run with one seed: the intervals cover the choice of held-out prompts, not what another seed would give.",
    ]
    if score.get("name"):
        points.append(
            f"The score {_md(score['name'])} is computed by a program. A higher score is not a better answer in "
            "every respect; read the samples in report.html."
        )
    before, after = number(fluency.get("before")), number(fluency.get("after"))
    if before is not None and after is not None and after - before < -FLUENCY_LIMIT:
        points.append(
            f"Its answers drifted from good English: their log-prob per token under the reference model fell by "
            f"{decimal(before - after)} nats. Not fit for use as it is."
        )
    return "\n".join(f"- {point}" for point in points)


def _md(text: Any) -> str:
    """`text` as plain words inside Markdown: on one line, with what Markdown or HTML would interpret escaped."""
    line = " ".join(visible(text).split())
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", line)
