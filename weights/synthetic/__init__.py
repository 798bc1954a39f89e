"""Seeded text for the model that ships: any number of stories, chats and few-shot documents.

Every document is a pure function of (seed, kind, number). Its random stream is `random.Random` with
a string seed, which CPython defines by SHA-512 and the Mersenne Twister, so the text depends
neither on the platform nor on PYTHONHASHSEED.

    python -m minigen.weights.synthetic --seed 1 --stories 20000 --chats 20000 --out DIR
"""
