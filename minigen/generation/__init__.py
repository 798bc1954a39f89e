"""From prompts to text. What happens to a prompt:

1. `text.py` encodes it into a row of ids (`rows.py`, with the limits of each row); `options.py` has
   the settings, checked.
2. `dispatch.py` decides, alone, who runs it: sampling, beam search (`beam.py`), or speculation.
3. `loop.py` runs the rows step by step, as one batch. Each step has three phases:
   - read: a Reader (`reader.py` has the protocol, a list of all readers, and the plain one,
     `Runner`) computes the logits of the prompts, and then of each new token;
   - choose: a `Choice` (`choosing.py`) chooses ids by the logits, on the device if that gives the
     same ids (`drawing.py`), else by `minigen/sampling/`;
   - stop: rows end at a stop id or at their limit. The step yields the rows that got an id.
4. `text.py` turns the ids into text as they come, and ends a row at a stop string (`stopping.py`).

`shared_text.py` and `branches.py` read a beginning that many texts share only once.
`speculation.py` and `drafting.py` guess tokens and check several in one pass. These are readers
that wrap another reader, so the loop is the same for all. Those for saved prompts and for chats are
in `minigen/prompt_cache.py` and `minigen/chat/kept.py`.
"""
