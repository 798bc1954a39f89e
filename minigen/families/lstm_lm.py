"""Recurrent language models in torch's layout: nn.Embedding, a stacked nn.LSTM, and nn.Linear as `decoder`."""

from __future__ import annotations

from minigen.families.family import Family, HubConfig, Source
from minigen.layers.cells import CELLS, RecurrentBlock
from minigen.models.causal import CausalLM

GATE_ORDERS = {"lstm": "i,f,g,o", "gru": "r,z,n"}


def family(cell: str) -> Family:
    """The family whose stack is named `cell` ("lstm", "gru", "rnn"), as torch names it."""

    def build(c: HubConfig) -> CausalLM:
        order = GATE_ORDERS.get(cell)
        if order is not None and c.get("gate_order", order) != order:
            raise c.fail("gate_order", f"only torch's order {order} is supported")
        hidden = c.integer("hidden_size")
        width = c.integer("embedding_size", hidden)
        tied = c.tied(default=False)
        if tied and width != hidden:
            raise c.fail("tie_word_embeddings", f"the embedding is {width} wide and the hidden state {hidden}")
        widths = [width] + [hidden] * (c.layers("num_layers") - 1)
        return CausalLM(
            vocab_size=c.integer("vocab_size"),
            width=width,
            context=None,  # what is remembered has one size however long the text
            blocks=tuple(RecurrentBlock(CELLS[cell], each, hidden) for each in widths),
            norm=None,
            tied=tied,
            head_bias=True,
            out_width=hidden,
            embedding_dropout=False,
        )

    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    stack = {f"blocks.{{layer}}.{name}": Source((f"{cell}.{name}_l{{layer}}",)) for name in names}
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
