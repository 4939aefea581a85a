"""Answers of a model with weights, sampled once: kept in a file named by all that they depend on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alignment.data.example import Example, Response
from alignment.evaluation.files import json_lines
from alignment.evaluation.models.answers import Answers, Said
from alignment.evaluation.models.contestants import Contestant
from alignment.evaluation.models.prompts import PromptSet, digest
from alignment.evaluation.models.weights import Weights
from alignment.resumable import OneProcess
from alignment.rollouts.sample import sample
from alignment.rollouts.sample_file import Sampling

VERSION = 1  # raised where what is stored changes its meaning
IN_THE_REST = ("max_prompt_length", "template", "dtype")  # of Sampling: in the prompts' ids, in the weights' key


def sampled_answers(
    contestant: Contestant,
    weights: Weights,
    asked: PromptSet,
    sampling: Sampling,
    folder: Path,
    processes: OneProcess | None = None,
) -> Answers:
    """`sampling.n` answers to each prompt, out of FOLDER/answers/NAME-KEY.jsonl, which is made or gone on with.

    The key is a digest of the weights, the prompts' token ids and the sampling settings: other scores, judges or names
    sample nothing anew. An answer has random numbers of its own, by seed, prompt and place among the prompt's answers;
    in float32 the batch it is drawn in does not show in it. The file holds example records, so that other commands
    read it; `meta["tokens"]` has the token ids. A prompt over `sampling.max_prompt_length` tokens gets no answer.

    Args:
        processes: those of the launch, each of which makes a part of the batches; None: this one alone.

    Raises:
        UserError: as loading, sampling and `ResumableFile` do.
    """
    processes = processes or OneProcess()
    ids = [weights.encode(prompt) for prompt in asked.prompts]
    fitting = [at for at, row in enumerate(ids) if len(row) <= sampling.max_prompt_length]
    drawn = {name: value for name, value in asdict(sampling).items() if name not in IN_THE_REST}
    settings = {"command": "eval", "version": VERSION, "weights": weights.key, **drawn}
    key = digest(settings, [ids[at] for at in fitting])
    path = folder / "answers" / f"{slug(contestant.spec)}-{key}.jsonl"
    file = processes.file(path, {**settings, "prompts": digest([ids[at] for at in fitting])})
    try:
        at_once = sampling.prompts_at_once
        pieces = [fitting[start : start + at_once] for start in range(0, len(fitting), at_once)]
        with processes.progress(f"sampling {contestant.name}", file.totals["prompts"], len(fitting)) as advance:
            for first in range(file.batches, len(pieces), processes.size):
                mine = first + processes.rank
                made = [_made(weights, asked, ids, pieces[mine], sampling)] if mine < len(pieces) else []
                for rows in processes.gathered(made):
                    file.add(rows, Counter(prompts=len(rows)))
                    advance(len(rows))
                processes.after_batch()
    finally:
        file.close()
    said: list[list[Said]] = [[] for _ in asked.prompts]
    for at, row in zip(fitting, json_lines(path), strict=True):
        said[at] = _read(row)
    answers = Answers(contestant, said, str(path), key)
    if left_out := len(asked) - len(fitting):
        over = f"prompts over {sampling.max_prompt_length:,} tokens, which get no answer"
        answers.notes.append(f"{contestant.name}: {over}: {left_out:,}")
    return answers


def slug(text: str) -> str:
    """`text` as a part of a file's name: its last part, without what a path minds."""
    return re.sub(r"[^\w.-]+", "_", Path(text).name or text)[:60]


def _made(
    weights: Weights, asked: PromptSet, ids: Sequence[list[int]], chosen: Sequence[int], sampling: Sampling
) -> list[dict[str, Any]]:
    """The rows of one batch of prompts."""
    n = sampling.n
    drawn = sample(
        weights.model,
        weights.tokenizer,
        [ids[at] for at in chosen for _ in range(n)],
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        batch_size=sampling.batch_size,
        seed=sampling.seed,
    )
    rows = []
    for place, at in enumerate(chosen):
        responses: list[Response] = []
        tokens: list[dict[str, Any]] = []
        for answer in drawn[place * n : (place + 1) * n]:
            said = bool(answer.text)  # no record can carry an answer without text: it has tokens alone
            tokens.append(
                {"ids": answer.ids, "finished": answer.finished, "response": len(responses) if said else None}
            )
            responses += [Response.of(answer.text, source=weights.spec)] if said else []
        rows.append(Example(asked.prompts[at], responses, meta={"tokens": tokens}).to_dict())
    return rows


def _read(row: dict[str, Any]) -> list[Said]:
    texts = [response.text for response in Example.from_dict(row).responses]
    return [
        Said("" if made["response"] is None else texts[made["response"]], tuple(made["ids"]), made["finished"])
        for made in row["meta"]["tokens"]
    ]
