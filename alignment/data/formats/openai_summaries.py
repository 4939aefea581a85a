"""OpenAI's "summarize from feedback" comparisons: a Reddit post, two summaries, and the one that was chosen."""

from __future__ import annotations

from alignment.data.example import Example
from alignment.data.formats.common import Row, RowError, answer, optional_text, pair, prompt_of, text, verdict

NAME = "openai_summaries"
DESCRIPTION = "OpenAI TL;DR comparisons: info (the post), two summaries, choice 0 or 1"


def parse(row: Row) -> Example | None:
    info, summaries = row.get("info"), row.get("summaries")
    if not isinstance(info, dict) or not isinstance(summaries, list) or "choice" not in row:
        return None
    if len(summaries) != 2 or not all(isinstance(item, dict) for item in summaries):
        raise RowError("summaries does not hold two summaries")
    parts = [
        f"{label}: {prefix}{said}"
        for label, prefix, said in (
            ("SUBREDDIT", "r/", optional_text(info.get("subreddit"), "info.subreddit")),
            ("TITLE", "", optional_text(info.get("title"), "info.title")),
            ("POST", "", text(info.get("post") or info.get("article"), "info.post")),
        )
        if said
    ]
    first, second = (
        answer(item.get("text"), f"summaries[{index}]", source=_policy(item)) for index, item in enumerate(summaries)
    )
    p_first = verdict(row["choice"], (0, "0"), (1, "1"), (), "choice")
    prompt = prompt_of("\n\n".join([*parts, "TL;DR:"]))
    return pair(row, ("info", "summaries", "choice"), prompt, (first, second), p_first)


def _policy(item: dict[str, object]) -> str | None:
    policy = item.get("policy")
    return policy if isinstance(policy, str) else None
