"""Answers of object stores: which failures are asked for again, for how long, and what is told in the end."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Sequence
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError
from s3fs.errors import translate_boto_error

from cube.errors import CorruptError
from cube.store.failures import FIRST_PATIENCE, DamagedAnswer, explained, insist, undamaged, unlike_listed, with_defaults


def answer(code: str, message: str = "as the server says", status: int = 400) -> OSError:
    """Return what s3fs makes of an error document."""
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error: OSError = translate_boto_error(ClientError(response, "GetObject"))  # type: ignore[arg-type]
    return error


PASSING = [
    answer("SlowDown"),
    answer("InternalError"),
    answer("ServiceUnavailable"),
    answer("BadDigest"),
    answer("IncompleteBody"),
    answer("RequestTimeout"),
    EndpointConnectionError(endpoint_url="http://127.0.0.1"),
    ReadTimeoutError(endpoint_url="http://127.0.0.1"),
    ConnectionResetError("reset"),
    DamagedAnswer("short"),
]
FINAL = [
    answer("AccessDenied"),
    answer("ExpiredToken"),
    answer("InvalidAccessKeyId"),
    answer("NoSuchBucket"),
    answer("NoSuchKey"),
    answer("400", "Bad Request"),
    answer("KeyTooLongError"),
    NoCredentialsError(),
    ValueError("no answer at all"),
]


class Asked:
    """Gives prepared answers, and remembers what it was asked for."""

    def __init__(self, *rounds: list[Any]) -> None:
        self.rounds, self.wishes = list(rounds), []  # type: ignore[var-annotated]

    def __call__(self, wishes: Sequence[str]) -> list[Any]:
        self.wishes.append(list(wishes))
        return self.rounds.pop(0)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let pauses pass at once; return how long they were."""
    slept: list[float] = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr("cube.store.failures.time.sleep", sleep)
    monkeypatch.setattr("cube.store.failures.time.monotonic", lambda: now[0])
    return slept


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_may_pass_is_asked_for_again_alone(pauses: list[float], error: Exception) -> None:
    ask = Asked([b"a", error, b"c"], [error], [b"b"])
    assert insist(ask, ["a", "b", "c"], "here") == [b"a", b"b", b"c"]
    assert ask.wishes == [["a", "b", "c"], ["b"], ["b"]]
    assert len(pauses) == 2


@pytest.mark.parametrize("error", FINAL, ids=repr)
def test_what_stays_is_not_asked_for_again(pauses: list[float], error: Exception) -> None:
    assert insist(Asked([error]), ["a"], "here") == [error]
    assert pauses == []


def test_patience_ends(pauses: list[float]) -> None:
    error = answer("SlowDown")
    assert insist(lambda wishes: [error], ["a"], "here") == [error]
    assert 30 <= sum(pauses) <= 38
    assert max(pauses) <= 8
    assert pauses[0] < pauses[2] < pauses[4]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (answer("AccessDenied", "Access Denied."), PermissionError, r"s3://b/k: Access Denied; check the credentials"),
        (answer("NoSuchBucket"), OSError, r"s3://b/k: as the server says; create the bucket"),
        (answer("SlowDown"), OSError, r"s3://b/k: .*; the server is overloaded"),
        (NoCredentialsError(), OSError, r"s3://b/k: NoCredentialsError: .*; check the credentials"),
        (
            EndpointConnectionError(endpoint_url="http://h"),
            OSError,
            r"s3://b/k: Endpoint.*; check the network and AWS_ENDPOINT",
        ),
        (ReadTimeoutError(endpoint_url="http://h"), TimeoutError, r"s3://b/k: Read timeout .*; the server did not go on"),
        (OSError(errno.EREMOTEIO, "odd"), OSError, r"s3://b/k: odd$"),
    ],
)
def test_an_error_says_where_and_what_to_do(error: Exception, kind: type[OSError], message: str) -> None:
    told = explained("s3://b/k", error)
    assert isinstance(told, kind)
    assert not isinstance(told, FileNotFoundError)
    assert told.__cause__ is error
    with pytest.raises(kind, match=message):
        raise told


def test_a_missing_object_and_a_mistake_are_left_as_they_are() -> None:
    for error in (answer("NoSuchKey"), DamagedAnswer("short"), ValueError("a mistake")):
        assert explained("s3://b/k", error) is error


def test_what_arrives_is_compared_with_the_listing() -> None:
    data = b"0123456789"
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    for stamp in (md5, f'"{md5}"', f'"{32 * "0"}-3"', "1700000000", ""):
        assert unlike_listed(data, 10, stamp) == ""
    assert unlike_listed(data, 11, md5).startswith("10 bytes arrived, the listing says 11; damaged on its way")
    assert unlike_listed(b"1123456789", 10, f'"{md5}"').startswith("its MD5 is ")


def test_what_is_damaged_is_read_once_more() -> None:
    def decode(data: bytes) -> str:
        if data != b"whole":
            raise CorruptError("damaged")
        return data.decode()

    assert undamaged(decode, b"whole", lambda: pytest.fail("read again")) == "whole"
    assert undamaged(decode, b"whale", lambda: b"whole") == "whole"
    with pytest.raises(CorruptError, match="damaged"):
        undamaged(decode, b"whale", lambda: b"whale")


def test_options_of_the_user_go_first() -> None:
    plain = with_defaults("s3://b/k", {})
    assert plain["config_kwargs"]["read_timeout"] < 60
    assert plain["config_kwargs"]["retries"]["total_max_attempts"] == 1
    options = {"anon": True, "max_concurrency": 4, "config_kwargs": {"read_timeout": 120, "signature_version": "s3v4"}}
    mixed = with_defaults("s3://b/k", options)
    assert (mixed["anon"], mixed["max_concurrency"]) == (True, 4)
    expected = {**plain["config_kwargs"], "read_timeout": 120, "signature_version": "s3v4"}
    assert mixed["config_kwargs"] == expected
    assert with_defaults("memory://b", {"x": 1}) == {"x": 1}


@pytest.mark.parametrize(
    ("reached", "longest"), [(False, FIRST_PATIENCE + 1), (True, 38)], ids=["it never answered", "it answered before"]
)
def test_a_server_that_is_not_there_is_given_up_sooner(pauses: list[float], reached: bool, longest: float) -> None:
    error, server = EndpointConnectionError(endpoint_url="http://h"), f"s3://bucket {reached}"
    if reached:
        assert insist(Asked([b"a"]), ["a"], server) == [b"a"]
    assert insist(lambda wishes: [error], ["a"], server) == [error]
    assert longest / 2 <= sum(pauses) <= longest
