"""What object stores answer when they do not give: which failures pass if one asks again, and errors that say what to do."""

from __future__ import annotations

import errno
import hashlib
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from cube.errors import CorruptError

PATIENCE = 30.0
"""Seconds after the first failure during which a request is made again."""
FIRST_PATIENCE = 1.0
"""The same for a server that has never answered: most often its name is mistyped."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0
_S3 = ("s3", "s3a")
_CONNECT_SECONDS, _READ_SECONDS = 5, 15
"""The longest a connection may take, and a server may send nothing."""
_CONNECTIONS = 48
"""Connections to a server at a time; botocore's own ten carry little over a line that answers late."""
_FINAL = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)
_FINAL_NUMBERS = (errno.EINVAL, errno.EPERM, errno.ENAMETOOLONG, errno.EMSGSIZE, errno.ENOTEMPTY)
"""What s3fs makes of answers that will be the same next time."""
_PASSING = ("BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "RequestTimeout")
"""Codes of answers to a request that was damaged, or cut off, on its way."""
_FINAL_CLIENT_ERRORS = ("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "UnauthorizedSSOTokenError")
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
Rest = ParamSpec("Rest")
Result = TypeVar("Result")
_UNREACHABLE = ("EndpointConnectionError", "ClientConnectorError", "ClientConnectorDNSError")
"""No such name, or nobody listens there."""
_CREDENTIALS = "check the credentials (they may have expired) and what they allow here"
_REMEDIES = {
    "NoSuchBucket": "create the bucket, or mend its name",
    "SlowDown": "the server is overloaded: use fewer workers, or come back later",
    "EndpointConnectionError": "check the network and AWS_ENDPOINT_URL",
    **dict.fromkeys(("ClientConnectorError", "ClientConnectorDNSError"), "check the network and the URL"),
    "ConnectTimeoutError": "check the network and AWS_ENDPOINT_URL",
    "ReadTimeoutError": "the server did not go on answering: check the network, or come back later",
    "400": f"servers answer so to expired credentials: {_CREDENTIALS}",
    **dict.fromkeys(
        ("ExpiredToken", "InvalidToken", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"), _CREDENTIALS
    ),
    **dict.fromkeys(("403", *_FINAL_CLIENT_ERRORS), _CREDENTIALS),
}

_reached: set[str] = set()
"""Servers that have answered in this process."""

Answer = TypeVar("Answer")
Stored = TypeVar("Stored", bytes, memoryview)
Wish = TypeVar("Wish")


class DamagedAnswer(OSError):
    """What arrived is not what the server holds."""


def with_defaults(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return fsspec's options for a URL: time-outs and tries for S3, and whatever ``options`` say instead."""
    if url.partition("://")[0] not in _S3:
        return dict(options)
    config: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS, "read_timeout": _READ_SECONDS}
    config["max_pool_connections"] = _CONNECTIONS
    config["retries"] = {"mode": "standard", "total_max_attempts": 1}  # s3fs and ``insist`` try again
    config |= options.get("config_kwargs", {})
    # More than one has s3fs ask for the size of an object before it reads it.
    return {"max_concurrency": 1, **options, "config_kwargs": config}


def client_errors() -> tuple[type[Exception], ...]:
    """Return the errors of the clients below fsspec that are no ``OSError``; only a failing request imports them."""
    from aiohttp import ClientError
    from botocore.exceptions import BotoCoreError
    from botocore.exceptions import ClientError as ServerError

    return BotoCoreError, ServerError, ClientError


def insist(
    ask: Callable[[Sequence[Wish]], list[Answer | Exception]], wishes: Sequence[Wish], server: str
) -> list[Answer | Exception]:
    """Ask for all wishes; ask again, after longer and longer pauses, for those whose failure may pass.

    A ``server`` that cannot be reached at all is given up sooner, unless it has answered before. An answer that is an
    exception stays in the list where asking again did not help.
    """
    started = time.monotonic()
    answers = ask(wishes)
    for pause in _pauses():
        if any(not isinstance(answer, Exception) or _code(answer) not in _UNREACHABLE for answer in answers):
            _reached.add(server)
        elif server not in _reached and time.monotonic() - started > FIRST_PATIENCE:
            break
        failed = [place for place, answer in enumerate(answers) if isinstance(answer, Exception) and _may_pass(answer)]
        if not failed:
            break
        time.sleep(pause)
        for place, answer in zip(failed, ask([wishes[place] for place in failed]), strict=True):
            answers[place] = answer
    return answers


def undamaged(decode: Callable[[Stored], Answer], data: Stored, again: Callable[[], Stored]) -> Answer:
    """Decode what was read; where it is damaged, read once more: what was damaged only on its way is whole then.

    Raises ``CorruptError`` if it is not.
    """
    try:
        return decode(data)
    except CorruptError:
        return decode(again())


def unlike_listed(data: bytes, size: int, stamp: str) -> str:
    """Return how an object differs from what a listing said of it, by its size and its ETag; nothing where it does not."""
    again = "; damaged on its way, or written anew since it was listed: run again"
    if len(data) != size:
        return f"{len(data):,} bytes arrived, the listing says {size:,}{again}"
    known = _MD5.fullmatch(stamp)
    seen = hashlib.md5(data, usedforsecurity=False).hexdigest() if known else ""
    return f"its MD5 is {seen}, the listing says {known[1]}{again}" if known and known[1] != seen else ""


def _pauses() -> Iterator[float]:
    """Yield pauses in seconds until patience is at an end. Those of many workers differ, lest all come back at once."""
    until, pause = time.monotonic() + PATIENCE, _FIRST_PAUSE
    while time.monotonic() < until:
        yield pause * random.uniform(0.5, 1)  # noqa: S311 (nobody is kept out by it)  # nosec B311
        pause = min(2 * pause, _LONGEST_PAUSE)


def _may_pass(error: Exception) -> bool:
    if isinstance(error, OSError):
        final = isinstance(error, _FINAL) or error.errno in _FINAL_NUMBERS or _code(error) == "NoSuchBucket"
        return not final or _code(error) in _PASSING
    return isinstance(error, client_errors()) and type(error).__name__ not in _FINAL_CLIENT_ERRORS


def explained(where: str, error: Exception) -> Exception:
    """Return the ``OSError`` to raise for a failed request: where it failed, how, and what to do.

    ``FileNotFoundError`` is left to say that one object is missing. What is no failure of a request is returned as it is.
    """
    if isinstance(error, DamagedAnswer) or not isinstance(error, (OSError, *client_errors())):
        return error
    code = _code(error)
    if isinstance(error, FileNotFoundError) and code != "NoSuchBucket":
        return error
    said = (error.strerror or str(error)) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    remedy = _REMEDIES.get(code)
    kind = PermissionError if isinstance(error, PermissionError) else TimeoutError if "Timeout" in code else OSError
    told = kind(f"{where}: {said.rstrip('.') or type(error).__name__}" + (f"; {remedy}" if remedy else ""))
    told.__cause__ = error
    return told


def _code(error: Exception) -> str:
    """Return what the server calls an error, or the client."""
    for known in (error, error.__cause__):
        response = getattr(known, "response", None)
        if isinstance(response, Mapping):
            return str(response.get("Error", {}).get("Code", ""))
    return type(error).__name__


def _attempt(call: Callable[[], Result]) -> Result | Exception:
    """Return what a call returns, or how it failed."""
    try:
        return call()
    except OSError as error:
        return error
    except client_errors() as error:
        return error


def insisting(method: Callable[Concatenate[Any, str, Rest], Result]) -> Callable[..., Result]:
    """Have a store's method on one key make its request again where that may help, and raise an error that says what to do."""

    @wraps(method)
    def asking(store: Any, key: str, *rest: Rest.args, **named: Rest.kwargs) -> Result:
        def ask(_: Sequence[str]) -> list[Result | Exception]:
            return [_attempt(lambda: method(store, key, *rest, **named))]

        (answer,) = insist(ask, [key], store.server)
        if isinstance(answer, Exception):
            raise explained(f"{store.url}/{key}".rstrip("/"), answer)
        return answer

    return asking
