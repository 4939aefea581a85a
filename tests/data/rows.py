"""One hand-made row for every layout of every format, and what it must become: (format, row, prompt, answers, p_first).

`p_first` is that of the first preference, None where there is none.
"""

from __future__ import annotations

from typing import Any


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


ASK = [_said("user", "Why?")]
SYSTEM_ASK = [_said("system", "Be brief."), *ASK]
YES, NO = [_said("assistant", "Yes.")], [_said("assistant", "No.")]
GRADED = (
    "###Task Description:\nGrade it.\n\n###The instruction to evaluate:\n{}\n\n###Response to evaluate:\n{}\n\n"
    "###Score Rubrics:\n[Is it right?]\nScore 1: no\n\n###Feedback: "
)
TREE = {
    "message_tree_id": "t1",
    "prompt": {
        "role": "prompter",
        "text": "Why?",
        "replies": [
            {"role": "assistant", "text": "No.", "rank": 1, "replies": []},
            {"role": "assistant", "text": "Yes.", "rank": 0, "replies": []},
            {"role": "assistant", "text": "Perhaps.", "replies": []},
        ],
    },
}

Case = tuple[str, dict[str, Any], list[dict[str, str]], list[str], float | None]
CASES: list[Case] = [
    ("standard", {"prompt": "Why?", "chosen": "Yes.", "rejected": "No."}, ASK, ["Yes.", "No."], 1.0),
    ("standard", {"question": "Why?", "chosen": " Yes", "rejected": " No"}, ASK, [" Yes", " No"], 1.0),
    (
        "standard",
        {"system": "Be brief.", "prompt": "Why?", "chosen": "Yes.", "rejected": "No."},
        SYSTEM_ASK,
        ["Yes.", "No."],
        1.0,
    ),
    (
        "standard",
        {"chosen": "The sky is blue.", "rejected": "The sky is black."},
        [_said("user", "The sky is")],
        [" blue.", " black."],
        1.0,
    ),
    ("conversational", {"prompt": ASK, "chosen": YES, "rejected": NO}, ASK, ["Yes.", "No."], 1.0),
    ("conversational", {"prompt": "Why?", "chosen": YES[0], "rejected": NO[0]}, ASK, ["Yes.", "No."], 1.0),
    ("conversational", {"chosen": ASK + YES, "rejected": ASK + NO}, ASK, ["Yes.", "No."], 1.0),
    ("conversational", {"prompt": "Why?", "chosen": ASK + YES, "rejected": ASK + NO}, ASK, ["Yes.", "No."], 1.0),
    (
        "conversational",
        {"system": "Be brief.", "chosen": SYSTEM_ASK + YES, "rejected": SYSTEM_ASK + NO},
        SYSTEM_ASK,
        ["Yes.", "No."],
        1.0,
    ),
    (
        "hh",
        {"chosen": "\n\nHuman: Why?\n\nAssistant: Yes.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
        ASK,
        ["Yes.", "No."],
        1.0,
    ),
    (
        "hh",
        {"prompt": "\n\nHuman: Why?\n\nAssistant:", "chosen": " Yes.", "rejected": " No."},
        ASK,
        [" Yes.", " No."],
        1.0,
    ),
    (
        "ultrafeedback",
        {"prompt": "Why?", "chosen": "Yes.", "rejected": "No.", "metadata": {"score_chosen": 8, "score_rejected": 2}},
        ASK,
        ["Yes.", "No."],
        1.0,
    ),
    (
        "ultrafeedback",
        {"prompt": "Why?", "chosen": ASK + YES, "rejected": ASK + NO, "score_chosen": 5.0, "score_rejected": 5.0},
        ASK,
        ["Yes.", "No."],
        0.5,
    ),
    (
        "ultrafeedback",
        {
            "instruction": "Why?",
            "completions": [
                {"response": "Yes.", "model": "a", "annotations": {"x": {"Rating": "4"}, "y": {"Rating": "5"}}},
                {
                    "response": "No.",
                    "overall_score": 3,
                    "critique": "Too short.",
                    "annotations": {"x": {"Rating": "N/A"}},
                },
            ],
        },
        ASK,
        ["Yes.", "No."],
        None,
    ),
    (
        "sharegpt",
        {
            "conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Why?"}],
            "chosen": {"from": "gpt", "value": "Yes."},
            "rejected": {"from": "gpt", "value": "No."},
        },
        SYSTEM_ASK,
        ["Yes.", "No."],
        1.0,
    ),
    (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Yes."}], "kto_tag": True},
        ASK,
        ["Yes."],
        None,
    ),
    (
        "alpaca",
        {"instruction": "Why?", "input": "nan", "response1": "Yes.", "response2": "No.", "feedback": "(b)"},
        ASK,
        ["Yes.", "No."],
        0.0,
    ),
    (
        "alpaca",
        {"instruction": "Why", "input": "this?", "output_1": "Yes.", "output_2": "No.", "preference": 1.25},
        [_said("user", "Why\n\nthis?")],
        ["Yes.", "No."],
        0.75,
    ),
    ("alpaca", {"instruction": "Why?", "input": "", "output": ["Yes.", "No."]}, ASK, ["Yes.", "No."], 1.0),
    ("alpaca", {"instruction": "Why?", "chosen": "Yes.", "rejected": "No."}, ASK, ["Yes.", "No."], 1.0),
    ("alpaca", {"input": "Why?", "output_1": "Yes.", "output_2": "No.", "label": 2}, ASK, ["Yes.", "No."], 0.0),
    (
        "judged_pairs",
        {"instruction": "Why?", "input": "", "response1": "Yes.", "response2": "No.", "annotator1": 2, "annotator2": 0},
        ASK,
        ["Yes.", "No."],
        0.0,
    ),
    (
        "judged_pairs",
        {"prompt": "Why?", "response 1": "Yes.", "response 2": "No.", "label": 2},
        ASK,
        ["Yes.", "No."],
        0.5,
    ),
    (
        "judged_pairs",
        {"prompt": "Why?", "completion_a": "Yes.", "completion_b": "No.", "preference": "b-is-slightly-better"},
        ASK,
        ["Yes.", "No."],
        0.0,
    ),
    (
        "judged_pairs",
        {"question": "Why?", "answer_a": "Yes.<br />Sure.", "answer_b": "No.", "overall_preference": -1},
        ASK,
        ["Yes.\nSure.", "No."],
        1.0,
    ),
    (
        "evaluation_pairs",
        {"question": "Why?", "answer_matching_behavior": " Yes", "answer_not_matching_behavior": " No"},
        ASK,
        [" Yes", " No"],
        1.0,
    ),
    (
        "evaluation_pairs",
        {"question": "Why?", "pos_answer": {"answer": "Yes.", "score": 1.0}, "neg_answer": {"answer": "No."}},
        ASK,
        ["Yes.", "No."],
        1.0,
    ),
    ("evaluation_pairs", {"text_chosen": ASK + YES, "text_rejected": ASK + NO}, ASK, ["Yes.", "No."], 1.0),
    (
        "grading",
        {
            "chosen_instruction": GRADED.format("Why?", "Yes."),
            "rejected_instruction": GRADED.format("Why?", "No."),
        },
        ASK,
        ["Yes.", "No."],
        1.0,
    ),
    (
        "grading",
        {
            "chosen_instruction": GRADED.format("Hm.\n\nAssistant: What?\n\nHuman: Why?", "Yes."),
            "rejected_instruction": GRADED.format("Hm.\n\nAssistant: What?\n\nHuman: Why?", "No."),
        },
        [_said("user", "Hm."), _said("assistant", "What?"), *ASK],
        ["Yes.", "No."],
        1.0,
    ),
    (
        "grading",
        {"instruction": GRADED.format("Why?", "Yes."), "gpt4_score": [4, 5, 3], "gpt4_feedback": ["a", "b", "c"]},
        ASK,
        ["Yes."],
        None,
    ),
    ("cut", {"instruction": "Why?", "input": "", "output": "Yes.", "judgment": None}, ASK, ["Yes."], None),
    (
        "cut",
        {"instruction": "Why?", "input": None, "output": "Yes.", "judgment": "Too short.", "score": 6},
        ASK,
        ["Yes."],
        None,
    ),
    ("critiques", {"prompt": "Why?", "completion": "Yes.", "judgment": "Hm."}, ASK, ["Yes."], None),
    ("critiques", {"question": "Why?", "answer": "Yes.", "feedback": "Too short."}, ASK, ["Yes."], None),
    (
        "critiques",
        {"system": "Be brief.", "prompt": "Why?", "response": "Yes.", "critique": ["Short.", ""], "rating": 3},
        SYSTEM_ASK,
        ["Yes."],
        None,
    ),
    ("critiques", {"messages": ASK + YES, "judgment": None, "satisfactory": True}, ASK, ["Yes."], None),
    (
        "critiques",
        {"instruction": "Why?", "output": "Yes.", "judgment": "Fine.", "satisfactory": "false"},
        ASK,
        ["Yes."],
        None,
    ),
    (
        "critiques",
        {
            "instruction": "###Task Description: …",
            "output": "Short. [RESULT] 2",
            "orig_instruction": "Why?",
            "orig_response": "Yes.",
            "orig_feedback": "Short.",
            "orig_score": "2",
        },
        ASK,
        ["Yes."],
        None,
    ),
    ("ratings", {"instruction": "Why?", "input": "nan", "response": "Yes.", "rating": "6"}, ASK, ["Yes."], None),
    ("ratings", {"prompt": "Why?", "completion": "Yes.", "score": 0.5}, ASK, ["Yes."], None),
    ("rankings", {"prompt": "Why?", "responses": ["No.", "Yes."], "ranks": [2, 1]}, ASK, ["No.", "Yes."], 0.0),
    ("rankings", {"prompt": "Why?", "responses": ["No.", "Yes."], "scores": [1, 2]}, ASK, ["No.", "Yes."], None),
    (
        "rankings",
        {"prompt": "Why?", "answers": [{"answer": "Yes.", "rank": 1, "model": "m"}, {"answer": "No.", "rank": 7}]},
        ASK,
        ["Yes.", "No."],
        1.0,
    ),
    (
        "openai_summaries",
        {
            "info": {"subreddit": "x", "title": "T", "post": "P"},
            "summaries": [{"text": " No.", "policy": "ref"}, {"text": " Yes."}],
            "choice": 1,
        },
        [_said("user", "SUBREDDIT: r/x\n\nTITLE: T\n\nPOST: P\n\nTL;DR:")],
        [" No.", " Yes."],
        0.0,
    ),
    ("oasst", TREE, ASK, ["No.", "Yes.", "Perhaps."], 0.0),
    (
        "labelled_answers",
        {"prompt": "Q: Why?\nA: Yes.\nTrue:", "completion": " yes"},
        ASK,
        ["Yes."],
        None,
    ),
    (
        "labelled_answers",
        {"prompt": "Why?", "completion": "No.", "type": "contrast_privacy", "final_label": "2_full_refusal"},
        ASK,
        ["No."],
        None,
    ),
    (
        "fine_grained",
        {
            "question": "Why?",
            "passages": [["Title", "One.", "Two."]],
            **{f"prediction {number}": f"Answer {number}." for number in (1, 2, 3, 4)},
            "preference": [2, 1, 0, 1, 1, 1],
            "feedback": {
                "errors": [{"error type": "Redundant", "start": 0, "end": 6}],
                "corrected-prediction": "Better.",
            },
        },
        [_said("user", "Title\nOne. Two.\n\nWhy?")],
        ["Answer 1.", "Answer 2.", "Answer 3.", "Answer 4.", "Better."],
        0.0,
    ),
    ("unpaired", {"prompt": "Why?", "completion": " Yes", "label": True}, ASK, [" Yes"], None),
    ("unpaired", {"prompt": ASK, "completion": YES, "label": "false"}, ASK, ["Yes."], None),
    ("unpaired", {"messages": SYSTEM_ASK + YES, "label": False}, SYSTEM_ASK, ["Yes."], None),
    ("unpaired", {"prompt": "Why?", "completion": "Yes."}, ASK, ["Yes."], None),
    ("unpaired", {"instruction": "Why?", "output": "Yes.", "generator": "m", "dataset": "d"}, ASK, ["Yes."], None),
    ("prompt_only", {"prompt": "Why?", "label": "unsafe"}, ASK, [], None),
    ("prompt_only", {"messages": SYSTEM_ASK}, SYSTEM_ASK, [], None),
    ("prompt_only", {"turns": ["Why?", "And then?"]}, ASK, [], None),
    ("prompt_only", {"prompt": {"text": "Why?", "toxicity": 0.1}}, ASK, [], None),
    (
        "example",
        {
            "prompt": ASK,
            "responses": [{"messages": YES}, {"messages": NO, "score": 1.5}],
            "preferences": [{"first": 1, "second": 0, "p_first": 0.25, "margin": None}],
            "meta": {"note": "mine"},
        },
        ASK,
        ["Yes.", "No."],
        0.25,
    ),
]

# (row, kind of the RowError, words of its reason)
BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": "Why?", "chosen": "Yes.", "rejected": "Yes."}, "identical", "same text"),
    ({"prompt": "Why?", "chosen": "Yes.", "rejected": " "}, "empty", "rejected is empty"),
    ({"prompt": "Why?", "chosen": "Yes."}, "empty", "rejected is missing"),
    ({"prompt": "Why?", "chosen": None, "rejected": None}, "empty", "chosen is missing"),
    ({"prompt": "", "chosen": "Yes.", "rejected": "No."}, "no prompt", "prompt is empty"),
    ({"prompt": None, "chosen": "Yes.", "rejected": "No."}, "no prompt", "prompt is empty"),
    ({"chosen": "Yes.", "rejected": "No."}, "no prompt", "do not begin with the same word"),
    ({"chosen": "Same.", "rejected": "Same."}, "identical", "same text"),
    ({"chosen": ASK + YES, "rejected": ASK + YES}, "identical", "same transcript"),
    ({"chosen": ASK + YES, "rejected": [_said("user", "How?"), *NO]}, "no prompt", "share no turn"),
    (
        {"chosen": ASK + YES + ASK + YES, "rejected": [*ASK, *YES, _said("user", "How?"), *NO]},
        "other",
        "differ in a turn of 'user'",
    ),
    ({"chosen": ASK + YES, "rejected": ASK + YES + ASK + NO}, "empty", "beginning of the other"),
    ({"prompt": "How?", "chosen": ASK + YES, "rejected": ASK + NO}, "other", "not part of"),
    ({"prompt": ASK, "chosen": YES, "rejected": ASK}, "other", "ends with a turn of 'user'"),
    (
        {"prompt": ASK, "chosen": [{"role": "assistant", "content": None}], "rejected": NO},
        "other",
        "content is missing",
    ),
    (
        {"prompt": ASK, "chosen": [{"role": "assistant", "content": "", "tool_calls": [1]}], "rejected": NO},
        "other",
        "tool",
    ),
    (
        {"chosen": "\n\nHuman: Why?\n\nAssistant: ", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
        "empty",
        "last reply of chosen is empty",
    ),
    (
        {"prompt": "Why?", "chosen": "Yes.", "rejected": "No.", "score_chosen": 1, "score_rejected": 2},
        "other",
        "contradicts the scores",
    ),
    ({"instruction": "Why?", "output_1": "Yes.", "output_2": "No.", "label": 0}, "other", "may mean the first"),
    ({"instruction": "Why?", "output_1": "Yes.", "output_2": "No."}, "other", "without a label"),
    ({"instruction": "Why?", "output": ["Yes."]}, "other", "1 answers, not two"),
    ({"instruction": "Why?", "response1": True, "response2": "No.", "annotator1": 1}, "other", "boolean True"),
    ({"instruction": "Why?", "output": "Yes.", "judgment": "$ERROR$"}, "other", "judge gave none"),
    ({"instruction": "Why?", "output": None, "judgment": "Short."}, "empty", "without the answer that it judges"),
    ({"instruction": "Why?", "judgment": "Short."}, "empty", "without the answer that it judges"),
    ({"instruction": "Why?", "output": " ", "judgment": None}, "empty", "output is empty"),
    ({"instruction": "Why?", "output": "Yes.", "judgment": 3}, "other", "judgment is the number 3"),
    ({"prompt": "Why?", "judgment": "Short."}, "empty", "without the answer that it judges"),
    ({"prompt": "Why?", "response": "", "critique": "Short."}, "empty", "response is empty"),
    ({"prompt": "Why?", "response": "Yes.", "critique": "Short.", "satisfactory": "hm"}, "other", "not true or false"),
    ({"prompt": "Why?", "response": "Yes.", "critique": [{"text": "Short."}]}, "other", "critique is an object"),
    ({"prompt": " ", "response": "Yes.", "critique": "Short."}, "no prompt", "prompt is empty"),
    ({"messages": ASK, "judgment": "Short."}, "other", "ends with a turn of 'user'"),
    ({"prompt": "Why?", "completion": "Yes.", "label": "good"}, "other", "label is 'good', not true or false"),
    ({"messages": ASK, "label": True}, "empty", "there is no answer"),
    ({"messages": YES, "label": True}, "no prompt", "messages is empty"),
    ({"prompt": "Why?", "responses": ["a", "b"], "ranks": [1]}, "other", "2 answers, but 1 ranks"),
    ({"prompt": "Why?", "response": "Yes.", "rating": "high"}, "other", "rating is 'high', not a number"),
    ({"conversations": [{"from": "martian", "value": "Why?"}]}, "other", "unknown speaker 'martian'"),
    ({"answer1_id": "a", "answer2_id": "b", "question_id": 1, "score": [1, 2]}, "no prompt", "join it"),
    ({"id": "1", "summaries": []}, "no prompt", "without their article"),
    (
        {"prompt": ASK, "responses": [{"messages": YES}], "preferences": [{"first": 0, "second": 1}]},
        "other",
        "response 1",
    ),
    (
        {
            "prompt": ASK,
            "responses": [{"messages": YES}, {"messages": NO}],
            "preferences": [{"first": 0, "second": 1, "p_first": 2}],
        },
        "other",
        "not in [0, 1]",
    ),
    ({"text": "something", "label": "pos"}, "unknown format", "the fields text, label"),
    ({}, "unknown format", "the fields (none)"),
]
