"""The names that people give to columns, by what they mean; order is preference. Names are compared without case and marks."""

from __future__ import annotations

import re

QUESTIONS = (
    "prompt", "question", "query", "problem", "instruction", "instructions", "task", "user", "user_prompt",
    "user_input",
    "user_message", "human", "inputs", "input", "request", "problem_statement", "question_text", "sql_prompt", "q",
    "original_question",
    "question_stem", "goal", "question_body", "问题", "指令", "提示", "質問",
)  # fmt: skip
INSTRUCTIONS = ("instruction", "instructions", "task", "prompt", "inputs", "input", "user", "request")
"""What is asked comes first, and what it is about follows; after another name, e.g. a question, it is the other way round."""
CONTEXTS = (
    "context", "contexts", "passage", "passages", "paragraph", "paragraphs", "background", "knowledge", "evidence",
    "support",
    "source_text", "facts", "documents", "document", "article", "story", "schema", "sql_context", "table",
    "reference_text", "doc",
    "retrieved_context", "scenario", "premise_text", "transcript",
    "retrieved_contexts", "oracle_context", "search_results",
)  # fmt: skip
INPUTS = ("input", "inputs", "extra_input", "input_text", "输入")
CHOICES = ("choices", "options", "endings", "answer_choices", "candidates")
ANSWERS = (
    "completion", "completions", "response", "responses", "output", "outputs", "generated_solution", "generated_response",
    "answer", "answers", "solution", "答案", "回答", "输出", "回复",
    "target", "targets",
    "assistant", "assistant_response", "gpt", "bot", "reply", "final_answer", "correct_answer", "best_answer",
    "gold_answer", "gold",
    "ground_truth", "expected_output", "expected_answer", "reference_answer", "model_output", "model_response",
    "llm_response",
    "output_text", "target_text", "answer_text", "generated_answer", "generation", "sql", "code", "answer_key",
    "correct", "a", "chosen_answer",
    "long_answer", "cot_answer", "tgt", "cop", "correct_option", "correct_choice", "answer_idx", "answer_index", "correct_index",
)  # fmt: skip
SUMMARIES = (
    "summary", "summaries", "highlights", "abstract", "headline", "tldr", "simplified", "translation_text",
    "paraphrase", "corrected",
    "rewritten", "title_target",
)  # fmt: skip
ANSWERS_TO_DOCUMENTS = (
    "completion", "response", "output", "outputs", "target", "targets", "answer", "answers", "target_text",
    "output_text", "reply",
    "expected_output", "gold_answer", "correct_answer", "final_answer", "ground_truth",
    "tgt", "long_answer",
)  # fmt: skip
"""Without a column that asks, fewer names are an answer."""
REASONINGS = (
    "reasoning", "reasoning_content", "rationale", "rationales", "complex_cot", "cot", "chain_of_thought",
    "thinking", "thought",
    "thoughts", "think", "thinking_trace", "reasoning_trace", "deepseek_reasoning", "explanation",
    "reasoning_steps", "scratchpad", "thinking_content",
    "thinking_trajectories", "exp", "solution",
)  # fmt: skip
SYSTEMS = (
    "system",
    "system_prompt",
    "system_message",
    "sys_prompt",
    "system_instruction",
    "system_text",
    "sys",
    "persona",
)
TURNS = (
    "messages", "conversations", "conversation", "dialog", "dialogue", "dialogs", "dialogues", "turns", "chat",
    "chats", "thread",
    "chat_messages", "conversation_turns", "data", "items",
    "contents",
)  # fmt: skip
HISTORIES = (
    "history", "chat_history", "conversation_history", "previous_turns", "dialogue_history", "dialog_history",
)  # fmt: skip
TOOLS = ("tools", "functions", "available_tools", "tool_definitions")
TEXTS = (
    "text", "sentence", "content", "utterance", "review", "document", "body", "article", "tweet", "comment", "post",
    "message",
    "description", "snippet", "paragraph", "passage", "review_body", "review_text", "raw_text", "full_text",
    "abstract", "title",
    "headline", "question", "query", "input", "prompt", "story", "code", "dialogue", "email", "report", "source",
    "src", "transcript", "comment_text", "tweet_text", "post_text", "utt", "文本", "内容", "评论",
)  # fmt: skip
PLAIN_TEXTS = (
    "text",
    "content",
    "body",
    "document",
    "article",
    "raw_text",
    "full_text",
    "page_content",
    "story",
    "code",
    "transcript",
    "sentence",
    "paragraph",
    "passage",
)
DOCUMENTS = (
    "document", "article", "text", "body", "content", "dialogue", "dialog", "transcript", "report", "story",
    "passage", "paragraph",
    "source", "source_text", "src", "context", "post", "review", "bill", "paper", "sentence", "conversation",
    "input_text", "full_text", "ctx",
)  # fmt: skip
SOURCES = ("source", "src")
"""Text to work on, or only where a row comes from."""
ASKING = ("prompt", "question", "query", "instruction", "problem", "user_prompt", "user_input", "问题", "指令")
ABOUT_A_TEXT = (
    "url",
    "link",
    "title",
    "id",
    "author",
    "authors",
    "metadata",
    "meta",
    "source",
    "filename",
    "path",
    "date",
    "tags",
)
"""What stands beside plain text and is none of it."""
LABELS = (
    "label", "labels", "category", "class", "intent", "sentiment", "target", "emotion", "topic", "label_text",
    "gold_label", "stance",
    "polarity", "is_duplicate", "entailment", "relevance", "relevant", "is_relevant", "is_toxic", "toxic", "spam",
    "is_spam", "stars",
    "label_name", "airline_sentiment", "class_name", "tag", "judgement", "judgment", "categories", "tags",
    "intents", "emotions", "topics", "标签", "类别", "分类",
)  # fmt: skip
JUDGEMENTS = (
    "label", "labels", "gold_label", "relevance", "relevant", "is_relevant", "entailment", "is_correct",
    "judgement", "judgment",
    "is_duplicate",
)  # fmt: skip
"""Labels that judge how two texts fit, so that an answer may be the second."""
SCORES = ("score", "rating", "similarity", "similarity_score", "relatedness_score", "relatedness", "stars")
PAIRS = (
    ("premise", "hypothesis"), ("sentence", "context_sentence"), ("question", "sentence"), ("question", "passage"),
    ("question", "context"), ("question", "document"), ("question", "paragraph"), ("query", "passage"),
    ("query", "document"), ("query", "doc"),
    ("query", "text"), ("query", "product_title"), ("query", "title"), ("query", "content"),
    ("query", "response"), ("question", "answer"),
    ("query", "answer"), ("claim", "evidence"), ("text", "text_pair"), ("text", "hypothesis"),
    ("text", "target_text"),
    ("context", "response"), ("anchor", "positive"), ("source", "target"), ("title", "text"), ("title", "body"),
    ("title", "content"),
    ("title", "description"), ("title", "abstract"), ("title", "review"), ("review_title", "review_body"),
    ("subject", "body"),
    ("subject", "text"), ("subject", "message"), ("headline", "body"), ("headline", "article"),
    ("headline", "text"), ("text", "context"),
    ("word", "sentence"), ("target", "sentence"), ("aspect", "sentence"), ("aspect", "text"),
    ("original", "paraphrase"), ("parent", "text"),
    ("anchor", "target"), ("claim", "text"), ("premise", "conclusion"), ("article", "claim"),
    ("document", "claim"), ("document", "query"), ("headline", "short_description"), ("title", "selftext"),
)  # fmt: skip
"""Two texts whose relation a label may name, in their order."""
PREFERENCES = (
    ("chosen", "rejected"), ("accepted", "rejected"), ("preferred", "rejected"), ("preferred", "dispreferred"),
    ("winner", "loser"),
    ("better", "worse"), ("good", "bad"), ("response_j", "response_k"), ("chosen_response", "rejected_response"),
    ("positive", "negative"),
    ("win", "lose"),
    ("preferred_output", "non_preferred_output"),
)  # fmt: skip
REWARDS = (
    "reward", "rewards", "score", "scores", "rating", "ratings", "preference_score", "helpfulness", "correctness",
    "quality_score",
    "reward_score", "response_score", "overall_score", "advantage",
)  # fmt: skip
IMAGES = (
    "image",
    "images",
    "image_path",
    "image_url",
    "pixel_values",
    "img",
    "video",
    "videos",
    "audio",
    "audios",
    "picture",
    "photo",
)
THREAD_PARENTS = ("parent_id", "parent", "reply_to", "in_reply_to", "parent_message_id")
THREAD_IDS = (
    "conversation_id",
    "thread_id",
    "dialogue_id",
    "dialog_id",
    "conv_id",
    "message_tree_id",
    "chat_id",
    "session_id",
)


ANSWER_WORDS = frozenset(
    (
        "answer", "answers", "solution", "solutions", "response", "responses", "output", "outputs", "completion", "reply",
        "summary", "generation", "generations", "target",
    )
)  # fmt: skip
WRONG_WORDS = frozenset(("incorrect", "wrong", "distractor", "rejected", "negative", "bad"))


def names_an_answer(column: str) -> bool:
    """The name says that the column holds an answer; of `model_response_2` the part `response` says it."""
    words = set(plain_name(column).split("_"))
    return bool(words & ANSWER_WORDS) and not words & WRONG_WORDS


def names_what_is_wrong(column: str) -> bool:
    """The name says that the column holds answers which are not right."""
    return bool({re.sub(r"s?\d*$", "", word) for word in plain_name(column).split("_")} & WRONG_WORDS)


def plain_name(column: str) -> str:
    """A column's name without case, marks and camel humps.

    >>> plain_name("Complex_CoT"), plain_name("systemPrompt"), plain_name("Input Text")
    ('complex_cot', 'system_prompt', 'input_text')
    """
    with_gaps = re.sub(r"(?<=[a-z])(?=[A-Z][a-z]|[A-Z]{2,}$)", "_", column.strip())
    return re.sub(r"[^\w]+|_+", "_", with_gaps.lower()).strip("_")
