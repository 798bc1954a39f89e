"""From prompts to text. The walk of one prompt:

1. `text.py` encodes it into a row of ids (`rows.py`, with the limits of each); `options.py` has the
   settings, checked.
2. `dispatch.py` picks who runs it: sampling, beam search (`beam.py`), or sampling with guesses.
   Nothing else does.
3. `loop.py` takes the rows step by step, as one batch, through three phases:
   - read: a Reader (`reader.py` has the protocol, lists all of them, and has the plain one,
     `Runner`) makes logits of the prompts, and then of each new token;
   - choose: a `Choice` (`choosing.py`) makes ids of the logits, on the device where that gives the
     same id (`drawing.py`), else by `minigen/sampling/`;
   - stop: is the row at a stop id or at its limit? It yields the rows that got an id.
4. `text.py` makes words of the ids as they come, and ends a row at a stop string (`stopping.py`).

`shared_text.py` and `branches.py` read a beginning that many texts share once; `speculation.py` and
`drafting.py` guess tokens and check several in one pass. They are readers that hold another one, so
the loop is the same for all; the ones for saved prompts and for chats are in
`minigen/prompt_cache.py` and `minigen/chat/kept.py`.
"""
