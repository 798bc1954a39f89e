"""What went wrong with the hub, in one line, from huggingface_hub's exceptions."""

import errno
from socket import gaierror

from huggingface_hub import constants, errors

from minigen.checkpoints.weight_files import abbreviate
from minigen.errors import SourceError

# The libraries that huggingface_hub sends requests with, by version, and the one for large files.
_TRANSPORTS = ("requests", "urllib3", "httpx", "httpx2", "httpcore", "httpcore2", "hf_xet")
_LOGIN = "set HF_TOKEN or run 'hf auth login'"


class UnreachableError(SourceError):
    """The hub did not answer: the cache may still help. The message does not say yet what to do."""


def explain(error: Exception, model: str, file: str) -> SourceError:
    """The error for an exception of huggingface_hub.

    Args:
        error: The exception.
        model: The model that was asked for, with its revision.
        file: The file that was asked for; "" for the list of files.
    """
    error = _cause(error)
    hub = constants.ENDPOINT
    repo, _, revision = model.partition("@")
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", 0)
    if isinstance(error, errors.GatedRepoError):
        return SourceError(f"{repo} is gated: accept its terms at {hub}/{repo}, then {_LOGIN}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return SourceError(
            f"{hub} has no model {repo}, or it is private: check the name, or {_LOGIN}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return SourceError(
            f"{repo} has no revision {revision or 'main'!r}: see {hub}/{repo}/tree/main"
        )
    if isinstance(error, errors.DisabledRepoError):
        return SourceError(f"{repo} is disabled on the hub: choose another model")
    if isinstance(error, errors.EntryNotFoundError):
        return SourceError(
            f"{model} lists {abbreviate([file])}, but {hub} has no such file: "
            "choose another revision"
        )
    if status in (401, 403):
        return SourceError(f"{hub} refuses access to {model} ({status}): check the token, {_LOGIN}")
    if status == 429 or status >= 500:
        return _unreachable(model, file, f"it answers {status}")
    if status:
        return SourceError(f"{hub} answers {status} for {model}: check the name and HF_ENDPOINT")
    library = type(error).__module__.partition(".")[0]
    if library in _TRANSPORTS or isinstance(error, (ConnectionError, TimeoutError, gaierror)):
        return _unreachable(model, file, _line(error))
    if isinstance(error, OSError) and error.errno is not None:
        return _cache_fault(error, model)
    if isinstance(error, OSError) and "Consistency check" in str(error):
        return _unreachable(model, file, "fewer bytes than promised")
    what = abbreviate([file]) if file else "the list of files"
    return SourceError(f"cannot download {what} of {model} ({_line(error)})")


def _cause(error: Exception) -> Exception:
    """The reason for an error: hf_hub_download may only say that the file is not in the cache."""
    while isinstance(error, errors.LocalEntryNotFoundError):
        if not isinstance(error.__cause__, Exception):
            break
        error = error.__cause__
    return error


def _unreachable(model: str, file: str, reason: str) -> UnreachableError:
    if file:
        return UnreachableError(
            f"the download of {abbreviate([file])} of {model} was interrupted ({reason})"
        )
    return UnreachableError(f"cannot reach {constants.ENDPOINT} ({reason})")


def _cache_fault(error: OSError, model: str) -> SourceError:
    cache = constants.HF_HUB_CACHE
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SourceError(
            f"no space left for {model} in {cache}: free some, or set HF_HOME to another disk"
        )
    return SourceError(
        f"cannot write {model} to {cache} ({error.strerror}): set HF_HOME to a folder of yours"
    )


def _line(error: Exception) -> str:
    """The error in one line: its kind, and its text if it has one."""
    kind, text = type(error).__name__, " ".join(str(error).split())
    if not text:
        return kind
    return f"{kind}: {text}"
