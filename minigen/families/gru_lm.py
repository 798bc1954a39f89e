"""GRU language models, stored as those with an LSTM."""

from minigen.families.lstm_lm import family

FAMILY = family("gru")
