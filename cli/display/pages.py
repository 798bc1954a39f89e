"""The pages of the manual: their names, and their text for a file or for a terminal."""

from __future__ import annotations

import re
from difflib import get_close_matches
from importlib.resources import files

from minigen.errors import UsageError

# Each topic is the page minigen/pages/TOPIC.md; the text says what is in it.
TOPICS = {
    "generate": "continue prompts: sampling, speculation, caches",
    "chat": "talk with a model, and see what it does",
    "prompts": "score few-shot prompt files; perplexity",
    "train": "train, fine-tune and distill models; tokenizers",
    "bench": "measure speed, and what makes a model fast",
    "models": "which models open; devices, dtypes, quantization",
    "library": "minigen in Python",
    "internals": "how it works, and what its results depend on",
    "adding-a-family": "support another architecture: a worked example",
}

# Commands whose page has another name.
PAGE_OF = {
    "prompt": "prompts",
    "score": "prompts",
    "cache": "generate",
    "tokenizer": "train",
    "convert": "models",
    "doctor": "models",
}

COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)
# A link to another file, or to a part of this one.
LINK = re.compile(r"\[([^\]\n]+)\]\((?!https?:)[^)\n]+\)")
CODE_INDENT = "    "
WIDEST = 100  # columns: longer lines are hard to read


def find_topic(word: str) -> str:
    """The topic that a word names: its own name, or that of a command.

    Raises UsageError for any other word, with the nearest name.
    """
    name = word.lower().replace("_", "-")
    if name in TOPICS:
        return name
    if name in PAGE_OF:
        return PAGE_OF[name]
    near = get_close_matches(name, [*TOPICS, *PAGE_OF], 1)
    advice = f"did you mean {near[0]}?" if near else f"choose from {', '.join(TOPICS)}"
    raise UsageError(f"there is no help on {word!r}: {advice}")


def page_text(topic: str) -> str:
    """A page as Markdown, without comments with only the text of links to files."""
    text = files("minigen").joinpath("pages", f"{topic}.md").read_text(encoding="utf-8")
    return LINK.sub(r"\1", COMMENT.sub("", text))


def contents() -> str:
    """The list of the topics, as Markdown."""
    rows = [f"| `minigen help {topic}` | {line} |" for topic, line in TOPICS.items()]
    head = ["# minigen help", "", "| page | what is in it |", "|---|---|"]
    foot = ["", "`minigen COMMAND --help` lists the flags of a command."]
    return "\n".join([*head, *rows, *foot]) + "\n"


def for_terminal(text: str, columns: int) -> str:
    """Markdown as text for a terminal of this width. Blocks of code are indented."""
    from markdown_it import MarkdownIt

    from ..chat.markdown_render import groups, render_tokens

    width = min(columns, WIDEST)
    parts = []
    for group in groups(MarkdownIt("commonmark").enable("table").parse(text)):
        indent = CODE_INDENT if group[0].type == "fence" else ""
        lines = render_tokens(group, width - len(indent)).split("\n")
        parts.append("\n".join(indent + line for line in lines))
    return "\n\n".join(parts) + "\n"
