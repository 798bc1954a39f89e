"""Recurrent language models in torch's layout: nn.Embedding, a stacked nn.LSTM, and nn.Linear as `decoder`."""

from __future__ import annotations

from minigen.families.family import Family, HubConfig, Source
from minigen.layers.cells import CELLS
from minigen.models.recurrent import Recurrent

GATE_ORDERS = {"lstm": "i,f,g,o", "gru": "r,z,n"}


def family(cell: str) -> Family:
    """The family whose stack is named `cell` ("lstm", "gru", "rnn"), as torch names it."""

    def build(c: HubConfig) -> Recurrent:
        order = GATE_ORDERS.get(cell)
        if order is not None and c.get("gate_order", order) != order:
            raise c.fail("gate_order", f"only torch's order {order} is supported")
        hidden = c.integer("hidden_size")
        width = c.integer("embedding_size", hidden)
        tied = c.flag("tie_word_embeddings", False)
        if tied and width != hidden:
            raise c.fail("tie_word_embeddings", f"the embedding is {width} wide and the hidden state {hidden}")
        return Recurrent(
            vocab_size=c.integer("vocab_size"),
            width=width,
            hidden=hidden,
            layers=c.layers("num_layers"),
            cell=CELLS[cell],
            tied=tied,
        )

    stack = {
        f"layers.*.{name}": Source((f"{cell}.{name}_l*",)) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    return Family(
        build,
        {
            "embedding.weight": Source(("embedding.weight",)),
            **stack,
            "head.weight": Source(("decoder.weight",)),
            "head.bias": Source(("decoder.bias",)),
        },
    )


FAMILY = family("lstm")
