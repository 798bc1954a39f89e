"""Recurrent language models as torch stores them: nn.Embedding, nn.LSTM, nn.Linear (`decoder`)."""

from __future__ import annotations

from minigen.families.family import Family, HubConfig, Source
from minigen.layers.cells import CELLS, RecurrentBlock
from minigen.models.causal import CausalLM

GATE_ORDERS = {"lstm": "i,f,g,o", "gru": "r,z,n"}


def family(cell: str) -> Family:
    """The family of one kind of cell: "lstm", "gru" or "rnn"."""

    def build(c: HubConfig) -> CausalLM:
        order = GATE_ORDERS.get(cell)
        if order is not None and c.get("gate_order", order) != order:
            raise c.fail("gate_order", f"only torch's order {order} is supported")
        hidden = c.integer("hidden_size")
        width = c.integer("embedding_size", hidden)
        tied = c.tied(default=False)
        if tied and width != hidden:
            raise c.fail(
                "tie_word_embeddings",
                f"embedding_size is {width} and hidden_size {hidden}; they must be equal",
            )
        inputs = [width] + [hidden] * (c.layers("num_layers") - 1)
        return CausalLM(
            vocab_size=c.integer("vocab_size"),
            width=width,
            context=None,  # what is remembered has the same size for a text of any length
            blocks=tuple(RecurrentBlock(CELLS[cell], size, hidden) for size in inputs),
            norm=None,
            tied=tied,
            head_bias=True,
            out_width=hidden,
            embedding_dropout=False,
        )

    layers = {}
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        layers[f"blocks.{{layer}}.{name}"] = Source((f"{cell}.{name}_l{{layer}}",))
    return Family(
        build,
        {
            "embedding.weight": Source(("embedding.weight",)),
            **layers,
            "head.weight": Source(("decoder.weight",)),
            "head.bias": Source(("decoder.bias",)),
        },
    )


FAMILY = family("lstm")
