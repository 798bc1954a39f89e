"""A hub model as a folder: what to download and what the cache already has. Imported only for a hub id.

The files come from one commit, by exact name, the weights last, and each is checked against what the hub states of it.
The cache's note of where a branch stands is moved only once a commit is complete, so a download that breaks off leaves
the previous model usable.
"""

import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import TypeVar

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache

from minigen.checkpoints.hub.faults import UnreachableError, explain
from minigen.checkpoints.hub.verify import Stated, check_download
from minigen.checkpoints.weight_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    INDEX,
    files_in,
    holds,
    is_adapter_of,
    no_adapter_weights,
    no_weights,
    pick_weights,
    read_index,
    some,
)
from minigen.errors import MinigenError, SourceError
from minigen.files import replacing
from minigen.tokenizer.names import TOKENIZER, is_text_file

PATIENCE = 2.0  # seconds without a word

_log = logging.getLogger("minigen")
_T = TypeVar("_T")


def fetch(repo: str, revision: str, *, offline: bool) -> Path:
    """The folder of one commit of a hub model, complete.

    Raises SourceError if it can neither be fetched nor found in the cache, has no weights that minigen reads, or comes
    with other bytes than the hub states; CheckpointError if its shard index is not usable.
    """
    place = repo if revision == "main" else f"{repo}@{revision}"
    if offline or constants.HF_HUB_OFFLINE:
        try:
            return _cached(repo, revision, place)
        except SourceError as error:
            raise SourceError(f"{error}: run once online (and without HF_HUB_OFFLINE) to download it") from None
    try:
        folder = _download(repo, revision, place)
    except UnreachableError as fault:
        try:
            folder = _cached(repo, revision, place)
        except SourceError as lacking:
            raise SourceError(f"{fault}, and {lacking}: check the connection and try again") from fault
        _log.warning("%s: using the cached copy of %s, commit %s", fault, place, folder.name[:8])
    else:
        _move_ref(folder, revision)
    return folder


def _download(repo: str, revision: str, place: str) -> Path:
    """Fetch the files that the cache lacks. Raises SourceError, UnreachableError, CheckpointError."""

    def ask(what: str, call: Callable[[], _T]) -> _T:
        try:
            return call()
        except Exception as error:  # each version of huggingface_hub lets another transport's errors through
            raise explain(error, place, what) from error

    api = HfApi(library_name="minigen")
    timeout = constants.HF_HUB_ETAG_TIMEOUT
    with _said_if_slow(place):
        info = ask("", lambda: api.model_info(repo, revision=revision, timeout=timeout, files_metadata=True))
    commit = info.sha or revision
    files = {str(file.rfilename): Stated.listed(file) for file in info.siblings or ()}
    stated = {name: file for name, file in files.items() if "/" not in name}
    names = sorted(stated)
    begin, weights = _begin(names, place)

    def get(name: str) -> Path:
        if PureWindowsPath(name).name != name:  # the newer versions of huggingface_hub alone refuse it
            raise SourceError(f"cannot fetch {some([name])} of {place} (it leads to another folder on some systems)")
        there = isinstance(ask(name, lambda: try_to_load_from_cache(repo, name, revision=commit)), str)
        path = Path(ask(name, lambda: hf_hub_download(repo, name, revision=commit, library_name="minigen")))
        if not there:
            check_download(path, stated.get(name, Stated()), place)
        return path

    folder = get(begin).parent
    for name in names:
        if is_text_file(name):
            get(name)
    if "tokenizer.model" in names and TOKENIZER not in names:
        get("tokenizer.model")
    shards = [weights]
    if weights == INDEX:
        shards = sorted(set(read_index(get(INDEX)).values()))
        if absent := [shard for shard in shards if shard not in names]:
            raise SourceError(f"{place} is incomplete on the hub: {INDEX} names {some(absent)}, not there")
    for shard in shards:
        get(shard)
    return folder


def _begin(names: list[str], place: str) -> tuple[str, str]:
    """The file that says what a commit holds, a model or an adapter of one, and the one to find its weights by.

    Raises SourceError if there is none of either.
    """
    if is_adapter_of(names):
        if ADAPTER_WEIGHTS not in names:
            raise SourceError(no_adapter_weights(names, place))
        return ADAPTER_CONFIG, ADAPTER_WEIGHTS
    weights = pick_weights(names)
    if weights is None:
        raise SourceError(no_weights(names, place))
    if "config.json" not in names:
        raise SourceError(f"{place} has no config.json; it {holds(names)}")
    return "config.json", weights


@contextmanager
def _said_if_slow(place: str) -> Iterator[None]:
    """Says whose answer is waited for, once that takes long: a folder may have been meant, and was not there."""
    say = threading.Timer(PATIENCE, lambda: _log.warning("waiting for %s to list %s", constants.ENDPOINT, place))
    say.daemon = True
    say.start()
    try:
        yield
    finally:
        say.cancel()
        say.join()


def _cached(repo: str, revision: str, place: str) -> Path:
    """The cache's folder of the commit. Raises SourceError, without a way out, if it is not there whole."""
    cache = Path(constants.HF_HUB_CACHE).expanduser().resolve()
    folder = cache / f"models--{repo.replace('/', '--')}"
    commit = revision
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        try:
            commit = (folder / "refs" / revision).read_text().strip()
        except OSError:
            commit = ""
    snapshot = folder / "snapshots" / commit
    if not commit or not snapshot.is_dir():
        raise SourceError(f"{place} is not in the cache {cache}")
    names = files_in(snapshot)
    weights = pick_weights(names)
    adapter = is_adapter_of(names)
    wanted = [ADAPTER_CONFIG, ADAPTER_WEIGHTS] if adapter else ["config.json", weights or "the weights"]
    if weights == INDEX:
        wanted += sorted(set(read_index(snapshot / INDEX).values()))
    if lacking := [name for name in wanted if name not in names]:
        raise SourceError(f"{place} is not complete in the cache {cache} (it lacks {some(lacking)})")
    return snapshot


def _move_ref(snapshot: Path, revision: str) -> None:
    """Note in the cache, as huggingface_hub does, which commit a branch or tag stands at."""
    ref = snapshot.parents[1] / "refs" / revision
    try:
        if revision == snapshot.name or (ref.is_file() and ref.read_text() == snapshot.name):
            return
        ref.parent.mkdir(parents=True, exist_ok=True)
        with replacing(ref) as beside:
            beside.write_text(snapshot.name)
    except (OSError, MinigenError) as error:  # the model is complete all the same; only a later offline run misses it
        reason = error.strerror if isinstance(error, OSError) else error
        _log.warning("cannot note %s in the cache (%s): offline it will not be found", ref, reason)
