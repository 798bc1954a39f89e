"""What went wrong between here and the hub, in one line: huggingface_hub's exceptions told apart."""

import errno
from socket import gaierror

from huggingface_hub import constants, errors

from minigen.checkpoints.weight_files import some
from minigen.errors import SourceError

# What huggingface_hub sends its requests through, by version, and the large files.
_TRANSPORTS = ("requests", "urllib3", "httpx", "httpx2", "httpcore", "httpcore2", "hf_xet")
_LOGIN = "set HF_TOKEN or run 'hf auth login'"


class UnreachableError(SourceError):
    """The hub gave no answer or broke off: the cache may still help. Its text has no way out yet."""


def explain(error: Exception, place: str, file: str) -> SourceError:
    """The error for what huggingface_hub raised when asked for a file, or for the list of them ("")."""
    # hf_hub_download hides the reason behind an error that only says that the file is not in the cache.
    while isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    hub = constants.ENDPOINT
    repo, _, revision = place.partition("@")
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", 0)
    if isinstance(error, errors.GatedRepoError):
        return SourceError(f"{repo} is gated: accept its terms at {hub}/{repo}, then {_LOGIN}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return SourceError(f"{hub} has no model {repo}, or it is private: check the name, or {_LOGIN}")
    if isinstance(error, errors.RevisionNotFoundError):
        return SourceError(f"{repo} has no revision {revision or 'main'!r}: see {hub}/{repo}/tree/main")
    if isinstance(error, errors.DisabledRepoError):
        return SourceError(f"{repo} is disabled on the hub: choose another model")
    if isinstance(error, errors.EntryNotFoundError):
        return SourceError(f"{place} lists {some([file])}, but {hub} has no such file: choose another revision")
    if status in (401, 403):
        return SourceError(f"{hub} refuses access to {place} ({status}): check the token, {_LOGIN}")
    if status == 429 or status >= 500:
        return _unreachable(place, file, f"it answers {status}")
    if status:
        return SourceError(f"{hub} answers {status} for {place}: check the name and HF_ENDPOINT")
    if type(error).__module__.partition(".")[0] in _TRANSPORTS or isinstance(
        error, (ConnectionError, TimeoutError, gaierror)
    ):
        return _unreachable(place, file, _line(error))
    if isinstance(error, OSError) and error.errno is not None:
        return _cache_fault(error, place)
    if isinstance(error, OSError) and "Consistency check" in str(error):
        return _unreachable(place, file, "fewer bytes than promised")
    return SourceError(f"cannot fetch {some([file]) if file else 'the list of files'} of {place} ({_line(error)})")


def _unreachable(place: str, file: str, reason: str) -> UnreachableError:
    if file:
        return UnreachableError(f"the download of {some([file])} of {place} broke off ({reason})")
    return UnreachableError(f"cannot reach {constants.ENDPOINT} ({reason})")


def _cache_fault(error: OSError, place: str) -> SourceError:
    cache = constants.HF_HUB_CACHE
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SourceError(f"no space left for {place} in {cache}: free some, or set HF_HOME to another disk")
    return SourceError(f"cannot write {place} to {cache} ({error.strerror}): set HF_HOME to a folder of yours")


def _line(error: Exception) -> str:
    """The error in one line: its kind, and its text if it has one."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
