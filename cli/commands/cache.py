"""`minigen cache`: save the state of a long prompt to disk, for `generate --cache`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from minigen.errors import UsageError

from ..display.prompts import add_prompt_arguments, read_prompts
from ..model_arguments import add_model_arguments, load_model
from ..parser import Parser


def add_arguments(parser: Parser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    text = "process a prompt and save its state"
    build = actions.add_parser("build", help=text, description=text)
    text = "the file to write; an existing file is replaced"
    build.also(build.add_argument("cache", metavar="FILE", help=text), "--cache", "--out")
    add_model_arguments(build, positional=False)
    add_prompt_arguments(build)
    text = "show what a file contains (needs no model)"
    show = actions.add_parser("show", help=text, description=text)
    text = "a file that `minigen cache build` made"
    show.also(show.add_argument("cache", metavar="FILE", help=text), "--cache")
    text = "print one JSON object, with the token ids"
    show.add_argument("--json", action="store_true", help=text)


def run(args: argparse.Namespace) -> int:
    if args.action == "build":
        return build_cache(args)
    return show_cache(args)


def build_cache(args: argparse.Namespace) -> int:
    prompts = read_prompts(args)
    if len(prompts) > 1:
        raise UsageError(f"a cache holds one prompt, not {len(prompts)}: give one -p or one -f")
    model = load_model(args)
    from minigen.prompt_cache import save_prompt

    path = Path(args.cache)
    ids = model.needed_tokenizer.encode_prompt(prompts[0], special=args.special)
    # A hub id says more than the folder that it was downloaded to. A local path is not stored,
    # because the file may be shared.
    name = model.folder.name
    if args.model and not Path(args.model).exists():
        name = args.model
    info = save_prompt(model, ids, path, name)
    print(f"{path}: {len(info.ids)} tokens of {info.model} in {info.dtype}, {megabytes(path)}")
    return 0


def show_cache(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from minigen.prompt_cache import read_prompt_info

    path = Path(args.cache)
    info = read_prompt_info(path)
    if args.json:
        values = {"file": args.cache, **asdict(info), "bytes": path.stat().st_size}
        print(json.dumps(values, ensure_ascii=False))
        return 0
    lines = {
        "model": info.model,
        "fingerprint": info.fingerprint,
        "dtype": info.dtype,
        "tokens": len(info.ids),
        "size": megabytes(path),
        "made with": info.made_with,
    }
    for name, value in lines.items():
        print(f"{name:<11}  {value}")
    return 0


def megabytes(path: Path) -> str:
    """The size of a file."""
    return f"{path.stat().st_size / 1e6:.3g} MB"
