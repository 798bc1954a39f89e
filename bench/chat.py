"""The second turn of a long conversation: reading only the new tokens, or everything again.

    python bench/chat.py [--backend torch] [--tokens 1000] [--runs 5]

The model has SmolLM2-135M's shape, random weights, bytes as tokens, and float32. Turn and
re-reading alternate; both give the same tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path
from statistics import median
from typing import Any

from random_model import random_runner

from minigen.backends import get_backend
from minigen.benchmark.shapes import SHAPES
from minigen.chat.conversation import Conversation
from minigen.chat.engine import Answer, Chat
from minigen.model import Model

SMOLLM2_135M = {**SHAPES["smollm2-135m"], "tokenizer": "bytes"}


def make_model(backend: str) -> Model:
    runner = random_runner(get_backend(backend, None, "float32"), SMOLLM2_135M)
    return Model(runner, Path("SmolLM2-135M shape"), SMOLLM2_135M)


def run(answer: Answer) -> Answer:
    for _ in answer:
        pass
    answer.finish()
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", default="torch")
    parser.add_argument(
        "--tokens", type=int, default=1000, help="of the conversation before the second turn"
    )
    parser.add_argument(
        "--runs", type=int, default=5, help="the first, which is dropped, comes on top"
    )
    args = parser.parse_args()
    model, load = make_model(args.backend), os.getloadavg()[0]
    settings: dict[str, Any] = {
        "temperature": 0,
        "max_tokens": 16,
        "seed": 0,
        "logit_bias": dict.fromkeys(range(256, 49152), -1e9),
    }
    chat = Chat(model, settings=settings)
    run(chat.say("x" * (args.tokens - 16 - len("User: \nAssistant:\n"))))
    rows: list[tuple[Answer, Answer]] = []
    for number in range(args.runs + 1):
        turn = run(chat.say(f"{number} and what do you say to that?"))
        fresh = Chat(model, Conversation(chat.conversation.spoken[:2]), settings=settings)
        rows.append((turn, run(fresh.say(chat.conversation.spoken[2].content))))
        assert rows[-1][0].row.ids == rows[-1][1].row.ids, "the two ways say different things"
        chat.conversation.take_turn()
    print(f"{'':24} {'tokens read':>12} {'to the first token':>20}")
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {load:.2f} at the start",
        "setting": vars(args), "conversation_tokens": len(rows[0][0].row.prompt),
    }  # fmt: skip
    for side, name in enumerate(("the turn alone", "everything again")):
        read = [pair[side].reading.tokens_read for pair in rows[1:]]
        seconds = [pair[side].reading.timing.first_token_s for pair in rows[1:]]
        print(f"{name:24} {max(read):>12} {median(seconds):>18.3f} s")
        result[("turn", "again")[side]] = {"tokens_read": read, "first_token_s": seconds}
    ratio = median(result["again"]["first_token_s"]) / median(result["turn"]["first_token_s"])
    print(f"{ratio:.1f} times as long")
    print(json.dumps(result | {"ratio": ratio}))


if __name__ == "__main__":
    main()
