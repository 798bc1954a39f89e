"""Training speed: minigen and a plain PyTorch loop like nanoGPT's train.py, round by round.

    python -m bench.train_speed [--quick] [--shapes baby small lstm] [--rounds 5] [--compile]

It is `minigen bench --train` with one more contestant, which is what nanoGPT runs on a CPU by
default: nn.Linear modules in float32, F.scaled_dot_product_attention, AdamW, no compile; for the
LSTM, nn.LSTM in the same loop. The last line is JSON. torch may multiply float32 with MKL and run
an LSTM with oneDNN, which is faster on AMD: a share of the measured peak can then exceed 100 %.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from minigen.backends.training import Optimizer
from minigen.benchmark.plan import Case
from minigen.benchmark.run import Result, as_json, measure
from minigen.benchmark.statistics import ratio
from minigen.benchmark.training import LR, TrainedSubject, TrainingSession, recipe_of
from minigen.cli.bench.columns import machine_lines, result_columns, result_notes
from minigen.cli.bench.report import as_table
from minigen.cli.display.progress import Bar
from minigen.training.batch import Batch

from .peers.plain_gpt import transformer

LSTM = {
    "model_type": "lstm_lm",
    "vocab_size": 65,
    "embedding_size": 256,
    "hidden_size": 256,
    "num_layers": 2,
}
PRESETS = {"baby": "baby", "small": "shakespeare_char"}  # nanoGPT's, for a GPU and for a CPU
SHAPES = (*PRESETS, "lstm")
PLAIN = "plain torch"


@dataclass(frozen=True)
class PlainSubject(TrainedSubject):
    def session(self) -> PlainSession:
        return PlainSession(replace(self, backend="torch"))  # whose device and peak it has

    def packages(self) -> Sequence[str]:
        return ("torch",)


class PlainSession(TrainingSession):
    def load(self) -> None:
        import torch
        from torch import nn

        c, o = self.subject.config, self.subject.optimizer

        class LSTM(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                width = c["hidden_size"]
                self.tokens, self.head = (
                    nn.Embedding(c["vocab_size"], width),
                    nn.Linear(width, c["vocab_size"]),
                )
                self.lstm = nn.LSTM(width, width, c["num_layers"], batch_first=True)

            def forward(self, ids: Any) -> Any:
                return self.head(self.lstm(self.tokens(ids))[0])

        if c["model_type"] == "lstm_lm":
            self.model = LSTM()
        else:
            self.model = transformer(
                *(c[name] for name in ("vocab_size", "n_embd", "n_head", "n_layer", "n_positions"))
            )
        self.parameters = list(self.model.parameters())
        groups = [
            {
                "params": [p for p in self.parameters if p.dim() >= 2],
                "weight_decay": o.weight_decay,
            },
            {"params": [p for p in self.parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=LR, betas=o.betas, eps=o.eps)

    def step(self, batch: Batch) -> None:
        import torch
        import torch.nn.functional as F

        ids, targets = torch.from_numpy(batch.ids), torch.from_numpy(batch.targets.copy())
        loss = F.cross_entropy(self.model(ids).flatten(0, 1), targets.view(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.subject.optimizer.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        loss.item()


def subjects_of(shape: str, compiled: bool) -> tuple[list[TrainedSubject], Case]:
    """The plain loop first, and the size of a step."""
    if shape in PRESETS:
        fields, config = recipe_of(PRESETS[shape])
        fields |= {"dropout": 0.0}  # the plain loop has none
        case = Case("train", config.model.context, batch=config.schedule.batch)
    else:
        fields = {"config": LSTM, "folder": None, "stored": "float32", "optimizer": Optimizer()}
        case = Case("train", 256, batch=64)
    fields |= {"model": shape, "device": "cpu"}
    subjects = [PlainSubject(**fields, backend=PLAIN, dtype="float32")]
    subjects += [
        TrainedSubject(**fields, backend="torch", dtype=dtype) for dtype in ("float32", "bfloat16")
    ]
    if compiled and shape in PRESETS:
        fields |= {"model": f"{shape}, compiled", "compile": True}
        subjects.append(TrainedSubject(**fields, backend="torch", dtype="bfloat16"))
    return subjects, case


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="also with torch.compile, which takes a minute to start",
    )
    args = parser.parse_args()
    every: list[Result] = []
    about: dict[str, Any] = {}
    for shape in args.shapes:
        subjects, case = subjects_of(shape, args.compile)
        with Bar(shape, "runs", refresh=1) as bar:
            machine, results = measure(
                subjects, [case], 2 if args.quick else args.rounds, bar.reach, quiet=bool(every)
            )
        about, every = about or machine, every + results
        plain = results[0].samples_tps
        columns = {
            **result_columns(False),
            "ratio": lambda r, p=plain: f"{ratio(p, r.samples_tps).ratio:.2f}x",
        }
        print(
            as_table(
                results, columns, machine_lines(machine), result_notes(machine, results), 120, False
            )
        )
    print(json.dumps(as_json(about, every)))


if __name__ == "__main__":
    main()
