"""Prompt files: a description, examples and items (Brown et al. 2020).

`minigen help prompts` describes the format.
"""

from minigen.evaluation.fewshot.checks import check
from minigen.evaluation.fewshot.file import Example, Item, PromptError, PromptFile, Score, Shots
from minigen.evaluation.fewshot.finding import Finding
from minigen.evaluation.fewshot.layout import (
    Prompt,
    choose_examples,
    prefix,
    render,
    render_content_free,
    render_text,
    render_unconditional,
)
from minigen.evaluation.fewshot.load import load_prompt_file

__all__ = [
    "Example",
    "Finding",
    "Item",
    "Prompt",
    "PromptError",
    "PromptFile",
    "Score",
    "Shots",
    "check",
    "choose_examples",
    "load_prompt_file",
    "prefix",
    "render",
    "render_content_free",
    "render_text",
    "render_unconditional",
]
