"""Seeded text for the model that ships: stories, chats and few-shot documents, without end.

Every document is a pure function of (seed, kind, number): its random stream is `random.Random` with a string seed,
which CPython defines by SHA-512 and the Mersenne Twister, so neither platform nor PYTHONHASHSEED changes anything.

    python -m minigen.weights.synthetic --seed 1 --stories 20000 --chats 20000 --fewshot 20000 --out DIR
"""
