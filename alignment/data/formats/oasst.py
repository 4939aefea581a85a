"""OpenAssistant conversation trees: one example for every turn of the prompter, its replies ranked by people."""

from __future__ import annotations

from typing import Any

from alignment.data.example import Example, Message
from alignment.data.formats.common import Row, RowError, answer, build, number, prompt_of, text
from alignment.data.formats.rankings import ranked

NAME = "oasst"
DESCRIPTION = "OpenAssistant trees: message_tree_id and a prompt with nested replies and ranks"
_ROLES = {"prompter": "user", "assistant": "assistant"}


def parse(row: Row) -> list[Example] | None:
    root = row.get("prompt")
    if "message_tree_id" not in row or not isinstance(root, dict) or "replies" not in root:
        return None
    examples: list[Example] = []
    pending: list[tuple[dict[str, Any], list[Message]]] = [(root, [])]
    while pending:  # a stack and not recursion: a tree may be deeper than Python's limit
        node, history = pending.pop()
        said = {"role": _role(node), "content": text(node.get("text"), "a message of the tree")}
        turns, replies = [*history, said], _replies(node)
        if said["role"] == "user":
            responses = [answer(reply.get("text"), "a reply", source=_source(reply)) for reply in replies]
            ranks = [number(reply.get("rank"), "rank") for reply in replies]
            example = build(row, ("prompt",), prompt_of(turns), responses, ranked(responses, ranks))
            example.meta["fields"]["message_id"] = node.get("message_id")
            examples.append(example)
        pending.extend((reply, turns) for reply in reversed(replies))
    return examples


def _replies(node: dict[str, Any]) -> list[dict[str, Any]]:
    replies = node.get("replies") or []
    if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
        raise RowError("replies is not a list of messages")
    roles = {_role(reply) for reply in replies}
    if roles and roles != {"assistant" if _role(node) == "user" else "user"}:
        raise RowError("a message is followed by one of the same role")
    return replies


def _role(node: dict[str, Any]) -> str:
    role = node.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise RowError(f"unknown role {str(role)[:40]!r} in the tree; known are prompter, assistant")
    return _ROLES[role]


def _source(node: dict[str, Any]) -> str | None:
    if not node.get("synthetic"):
        return "human"
    return node["model_name"] if isinstance(node.get("model_name"), str) else "synthetic"
