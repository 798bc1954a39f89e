"""Settings: where they come from, what they may be, and the learning rate."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest

from minigen.errors import UsageError
from minigen.training.config import SETTINGS, Config, ScheduleConfig
from minigen.training.presets import PRESETS
from minigen.training.run import make_config
from minigen.training.schedule import learning_rate
from minigen.training.toml_file import read_toml, to_toml


def test_flags_over_file_over_preset_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        '[model]\nlayers = 3\nwidth = 64\n[data]\ndata = ["text.txt"]\n[schedule]\nlr = 1\n'
    )
    config = make_config({"width": 32}, "shakespeare_char", file)
    assert (
        config.model.width,
        config.model.layers,
        config.model.context,
        config.model.kv_heads,
    ) == (32, 3, 64, 0)
    assert config.schedule.lr == 1.0
    assert isinstance(config.schedule.lr, float)
    assert config.data.data == (str(tmp_path / "text.txt"),)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_and_the_saved_file(tmp_path: Path, name: str) -> None:
    odd = {
        "data": [str(tmp_path / 'a "b"\\é\x7f\n.txt')],
        "separator": "\t<|x|>",
        "betas": [0.5, 0],
    }
    config = make_config(odd, name)
    (tmp_path / "train.toml").write_text(to_toml(config), encoding="utf-8")
    assert Config().replace(**read_toml(tmp_path / "train.toml")) == config


def test_every_setting_has_a_help_and_a_default_that_it_may_have() -> None:
    config = Config()
    assert config.replace(**config.values()) == config
    for _, f in SETTINGS.values():
        assert f.metadata["help"]
    assert {f.name for _, f in SETTINGS.values()} == {
        f.name
        for group in dataclasses.fields(config)
        for f in dataclasses.fields(getattr(config, group.name))
    }


BAD_TOML = {
    "[model]\nlayer = 3": "unknown setting 'layer' in [model]: did you mean layers?",
    "[model]\nlr = 3": "unknown setting 'lr' in [model]: it belongs in [schedule]",
    "[modle]\nlayers = 3": "unknown 'modle': did you mean model?",
    "layers = 3": "unknown 'layers': it belongs in [model]",
    "[model]\nlayers = ": "is not valid TOML: ",
}


@pytest.mark.parametrize("text", BAD_TOML)
def test_a_file_that_is_wrong(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(UsageError, match=re.escape(BAD_TOML[text])) as caught:
        read_toml(tmp_path / "x.toml")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "x.toml") in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^cannot read .*no\.toml: No such file"):
        read_toml(tmp_path / "no.toml")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("layers", 0, "layers is 0: it must be a whole number >= 1"),
        ("layers", 1.5, "layers is 1.5: it must be a whole number >= 1"),
        ("layers", True, "layers is True: it must be a whole number >= 1"),
        ("tied", 1, "tied is 1: it must be true or false"),
        ("model", "bert", "model is 'bert': choose gpt, llama, lstm, gru, rnn"),
        ("valid", 0, "valid is 0: it must be a number > 0 and < 1"),
        ("valid", 1, "valid is 1: it must be a number > 0 and < 1"),
        ("lr", math.nan, "lr is nan: it must be a number > 0"),
        ("lr", -1, "lr is -1: it must be a number > 0"),
        ("betas", [0.9], r"betas is \[0.9\]: it must be 2 numbers"),
        ("betas", [0.9, 1.0], "betas is 1.0: it must be a number >= 0 and < 1"),
        ("data", [3], r"data is \[3\]: it must be a list of names"),
        ("chat", "alpaca", "chat is 'alpaca': choose phi3, chatml"),
    ],
)
def test_values_that_cannot_be(name: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}$"):
        Config().replace(**{name: value})


def test_what_comes_with_a_model() -> None:
    with pytest.raises(
        UsageError, match=r"^--width is given, but the model of --from has its own: drop one"
    ):
        make_config({"from": "somewhere", "width": 3})
    config = make_config({"from": "somewhere"}, "shakespeare")
    assert (config.model.layers, config.data.tokenizer) == (
        Config().model.layers,
        Config().data.tokenizer,
    )
    assert config.schedule.lr == PRESETS["shakespeare"]["lr"]
    assert "width" not in to_toml(config)


def test_cosine() -> None:
    s = ScheduleConfig(steps=101, warmup=10, lr=2.0, final=0.1)
    rates = [learning_rate(s, step) for step in range(101)]
    assert rates[:2] == pytest.approx([2 / 11, 4 / 11])
    assert rates[10] == 2.0
    assert rates[55] == pytest.approx(1.1)
    assert rates[100] == pytest.approx(0.2)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_flat_then_linear() -> None:
    s = ScheduleConfig(steps=100, warmup=10, lr=2.0, final=0.0, schedule="wsd", decay=0.5)
    rates = [learning_rate(s, step) for step in range(100)]
    assert rates[10:51] == [2.0] * 41
    assert rates[75] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(2 / 50)
    assert [
        learning_rate(ScheduleConfig(steps=1, schedule=name), 0) for name in ("cosine", "wsd")
    ] == [1e-3, 1e-3]
