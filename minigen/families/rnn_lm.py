"""The RNN language model, named as the LSTM's is."""

from minigen.families.lstm_lm import family

FAMILY = family("rnn")
