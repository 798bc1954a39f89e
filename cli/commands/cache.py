"""`minigen cache`: the state of a long prompt on disk, built once and used by `generate --cache`."""

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
    text = "read a prompt and save its state"
    build = actions.add_parser("build", help=text, description=text)
    cache = build.add_argument("cache", metavar="FILE", help="where to write it; an older file is replaced")
    build.also(cache, "--cache", "--out")
    add_model_arguments(build, positional=False)
    add_prompt_arguments(build)
    text = "what a file holds; needs no model"
    show = actions.add_parser("show", help=text, description=text)
    show.also(show.add_argument("cache", metavar="FILE", help="a file that cache build made"), "--cache")
    show.add_argument("--json", action="store_true", help="one JSON object, with the token ids")


def run(args: argparse.Namespace) -> int:
    return build_cache(args) if args.action == "build" else show_cache(args)


def build_cache(args: argparse.Namespace) -> int:
    prompts = read_prompts(args)
    if len(prompts) > 1:
        raise UsageError(f"a cache holds one prompt, not {len(prompts)}: give one -p or one -f")
    model = load_model(args)
    from minigen.prompt_cache import save_prompt

    path = Path(args.cache)
    ids = model.needed_tokenizer.encode_prompt(prompts[0], special=args.special)
    # A hub id says more than the folder it was fetched to; a path is nobody's business but the builder's.
    name = args.model if args.model and not Path(args.model).exists() else model.folder.name
    info = save_prompt(model, ids, path, name)
    print(f"{path}: {len(info.ids)} tokens of {info.model} in {info.dtype}, {megabytes(path)}")
    return 0


def show_cache(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from minigen.prompt_cache import read_prompt_info

    path = Path(args.cache)
    info = read_prompt_info(path)
    if args.json:
        print(json.dumps({"file": args.cache, **asdict(info), "bytes": path.stat().st_size}, ensure_ascii=False))
        return 0
    values = {
        "model": info.model,
        "fingerprint": info.fingerprint,
        "dtype": info.dtype,
        "tokens": len(info.ids),
        "size": megabytes(path),
        "made with": info.made_with,
    }
    print("\n".join(f"{name:<11}  {value}" for name, value in values.items()))
    return 0


def megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.3g} MB"
