"""A hub model as a folder: what to download, and what the cache already has.

Imported only for a hub id. The files come from one commit, by exact name, the weights last, and
each is checked against what the hub states about it. The cache's record of which commit a branch
points to is updated only once a commit is complete, so an interrupted download leaves the
previous model usable.
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
    abbreviate,
    contents_of,
    is_adapter_of,
    list_files,
    no_adapter_weights,
    no_weights,
    pick_weights,
    read_index,
)
from minigen.errors import MinigenError, SourceError
from minigen.files import replacing
from minigen.tokenizer.names import TOKENIZER, is_text_file

PATIENCE = 2.0  # seconds without an answer until a message says so

_log = logging.getLogger("minigen")
_T = TypeVar("_T")


def fetch(repo: str, revision: str, *, offline: bool) -> Path:
    """The complete folder of one commit of a hub model.

    Raises SourceError: it can neither be downloaded nor found in the cache, has no weights that
    minigen reads, or arrives with other bytes than the hub states.
    Raises CheckpointError: its shard index is not usable.
    """
    model = repo if revision == "main" else f"{repo}@{revision}"
    if offline or constants.HF_HUB_OFFLINE:
        try:
            return _cached(repo, revision, model)
        except SourceError as error:
            raise SourceError(
                f"{error}: run once online (and without HF_HUB_OFFLINE) to download it"
            ) from None
    try:
        folder = _download(repo, revision, model)
    except UnreachableError as fault:
        try:
            folder = _cached(repo, revision, model)
        except SourceError as missing:
            raise SourceError(
                f"{fault}, and {missing}: check the connection and try again"
            ) from fault
        _log.warning("%s: using the cached copy of %s, commit %s", fault, model, folder.name[:8])
    else:
        _move_ref(folder, revision)
    return folder


def _asking(model: str, file: str, call: Callable[[], _T]) -> _T:
    """The result of a call of huggingface_hub. Raises SourceError or UnreachableError."""
    try:
        return call()
    except Exception as error:  # the kinds differ between versions of huggingface_hub
        raise explain(error, model, file) from error


class _Commit:
    """The files of one commit on the hub, and how they get into the cache."""

    def __init__(self, repo: str, revision: str, model: str) -> None:
        """Asks the hub for the list of files. Raises SourceError or UnreachableError."""
        self.repo, self.model = repo, model
        api = HfApi(library_name="minigen")
        timeout = constants.HF_HUB_ETAG_TIMEOUT
        with _message_if_slow(model):
            info = _asking(
                model,
                "",
                lambda: api.model_info(
                    repo, revision=revision, timeout=timeout, files_metadata=True
                ),
            )
        self.commit = info.sha or revision
        self.stated: dict[str, Stated] = {}
        for file in info.siblings or ():
            name = str(file.rfilename)
            if "/" not in name:
                self.stated[name] = Stated.listed(file)

    @property
    def names(self) -> list[str]:
        return sorted(self.stated)

    def get(self, name: str) -> Path:
        """One file, downloaded and checked unless the cache has it."""
        if PureWindowsPath(name).name != name:  # only newer versions of huggingface_hub refuse it
            raise SourceError(
                f"cannot download {abbreviate([name])} of {self.model} "
                "(it leads to another folder on some systems)"
            )
        cached = _asking(
            self.model,
            name,
            lambda: try_to_load_from_cache(self.repo, name, revision=self.commit),
        )
        path = Path(
            _asking(
                self.model,
                name,
                lambda: hf_hub_download(
                    self.repo, name, revision=self.commit, library_name="minigen"
                ),
            )
        )
        if not isinstance(cached, str):
            check_download(path, self.stated.get(name, Stated()), self.model)
        return path


def _download(repo: str, revision: str, model: str) -> Path:
    """Downloads the files that the cache lacks.

    Raises SourceError, UnreachableError or CheckpointError.
    """
    commit = _Commit(repo, revision, model)
    names = commit.names
    config, weights = _first_files(names, model)
    folder = commit.get(config).parent
    for name in names:
        if is_text_file(name):
            commit.get(name)
    if "tokenizer.model" in names and TOKENIZER not in names:
        commit.get("tokenizer.model")
    shards = [weights]
    if weights == INDEX:
        shards = sorted(set(read_index(commit.get(INDEX)).values()))
        missing = [shard for shard in shards if shard not in names]
        if missing:
            raise SourceError(
                f"{model} is incomplete on the hub: {INDEX} names {abbreviate(missing)}, not there"
            )
    for shard in shards:
        commit.get(shard)
    return folder


def _first_files(names: list[str], model: str) -> tuple[str, str]:
    """The config file of a commit, a model's or an adapter's, and the file to find its weights by.

    Raises SourceError if it has none.
    """
    if is_adapter_of(names):
        if ADAPTER_WEIGHTS not in names:
            raise SourceError(no_adapter_weights(names, model))
        return ADAPTER_CONFIG, ADAPTER_WEIGHTS
    weights = pick_weights(names)
    if weights is None:
        raise SourceError(no_weights(names, model))
    if "config.json" not in names:
        raise SourceError(f"{model} has no config.json; it {contents_of(names)}")
    return "config.json", weights


@contextmanager
def _message_if_slow(model: str) -> Iterator[None]:
    """Logs what is being waited for, once that takes long: the user may have meant a folder."""

    def report() -> None:
        _log.warning("waiting for %s to list %s", constants.ENDPOINT, model)

    timer = threading.Timer(PATIENCE, report)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _cached(repo: str, revision: str, model: str) -> Path:
    """The commit's folder in the cache.

    Raises SourceError, which does not say yet what to do, if it is not complete there.
    """
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
        raise SourceError(f"{model} is not in the cache {cache}")
    names = list_files(snapshot)
    missing = [name for name in _needed_files(snapshot, names) if name not in names]
    if missing:
        raise SourceError(
            f"{model} is not complete in the cache {cache} (it lacks {abbreviate(missing)})"
        )
    return snapshot


def _needed_files(snapshot: Path, names: list[str]) -> list[str]:
    """The files that a model or an adapter in the cache cannot do without."""
    weights = pick_weights(names)
    needed = ["config.json", weights or "the weights"]
    if is_adapter_of(names):
        needed = [ADAPTER_CONFIG, ADAPTER_WEIGHTS]
    if weights == INDEX:
        needed += sorted(set(read_index(snapshot / INDEX).values()))
    return needed


def _move_ref(snapshot: Path, revision: str) -> None:
    """Records in the cache, as huggingface_hub does, which commit a branch or tag points to."""
    ref = snapshot.parents[1] / "refs" / revision
    try:
        if revision == snapshot.name or (ref.is_file() and ref.read_text() == snapshot.name):
            return
        ref.parent.mkdir(parents=True, exist_ok=True)
        with replacing(ref) as temporary:
            temporary.write_text(snapshot.name)
    except (
        OSError,
        MinigenError,
    ) as error:  # the model is complete; only offline runs will miss it
        reason = error.strerror if isinstance(error, OSError) else error
        _log.warning(
            "cannot record %s in the cache (%s): offline runs will not find it", ref, reason
        )
