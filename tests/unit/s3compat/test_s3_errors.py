from __future__ import annotations

import inspect

import pytest
import xmltodict

from transom.s3compat.errors import CATALOGUE, S3Error, from_target, in_header, render
from transom.target import errors as target


def test_an_error_takes_status_and_message_from_the_catalogue() -> None:
    error = S3Error("NoSuchKey", Key="k")
    assert (error.status, error.message, error.fields) == (404, CATALOGUE["NoSuchKey"][1], {"Key": "k"})
    assert S3Error("NoSuchKey", "gone").message == "gone"


def test_a_code_outside_the_catalogue_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        S3Error("NoSuchThing")


def test_every_status_is_an_errors() -> None:
    assert all(300 <= status < 600 and message for status, message in CATALOGUE.values())


def test_rendering() -> None:
    error = S3Error("NoSuchKey", "a < b & \x00\x1b]", Key="k\r\n\ud800")
    document = xmltodict.parse(render(error, resource="/b/k?a&b", request_id="r", host_id="h"), strip_whitespace=False)
    assert document["Error"] == {
        "Code": "NoSuchKey",
        "Message": "a < b & \ufffd\ufffd]",
        "Key": "k\r\n\ufffd",
        "Resource": "/b/k?a&b",
        "RequestId": "r",
        "HostId": "h",
    }


TARGET_ERRORS = [
    cls
    for _, cls in inspect.getmembers(target, inspect.isclass)
    if issubclass(cls, target.TargetError) and cls is not target.TargetError
]


@pytest.mark.parametrize("cls", TARGET_ERRORS)
def test_every_error_of_the_target_has_an_answer(cls: type[target.TargetError]) -> None:
    error = from_target(cls("the reason"))
    assert error.message == "the reason"
    assert error.code != "InternalError" or cls is target.SourceChanged


@pytest.mark.parametrize(
    ("cause", "code", "status"),
    [
        (target.NoSuchEtl("x"), "InvalidArgument", 400),
        (target.EtlArgsInvalid("x"), "InvalidArgument", 400),
        (target.EtlSkipped("x"), "NoSuchKey", 404),
        (target.EtlInputRejected("x"), "EtlInputRejected", 422),
        (target.EtlFailed("x"), "EtlFailed", 500),
        (target.EtlExited("x"), "EtlExited", 500),
        (target.EtlCrashed("x"), "EtlCrashed", 500),
        (target.EtlDisconnected("x"), "EtlDisconnected", 502),
        (target.EtlOutOfMemory("x"), "EtlOutOfMemory", 507),
        (target.EtlLimitReached("x"), "EtlLimitReached", 507),
        (target.EtlOutputTooLarge("x"), "EtlOutputTooLarge", 507),
        (target.EtlTimeout("x"), "EtlTimeout", 504),
        (target.EtlUnavailable("x"), "EtlUnavailable", 503),
        (target.ReadOnlyStore("x"), "MethodNotAllowed", 405),
        (target.StoreFull("x"), "StorageFull", 507),
        (target.ResultPreconditionFailed("x"), "PreconditionFailed", 412),
        (target.BucketExists("x", owner="o"), "BucketAlreadyExists", 409),
    ],
)
def test_what_the_targets_errors_become(cause: Exception, code: str, status: int) -> None:
    error = from_target(cause)
    assert (error.code, error.status) == (code, status)


def test_details_of_the_targets_errors_are_kept() -> None:
    assert from_target(target.SlowDown("later", retry_after_s=3)).headers == {"Retry-After": "3"}
    assert from_target(target.EtlFailed("no", etl="upper")).fields == {"Etl": "upper"}
    assert not from_target(target.EtlFailed("no")).fields
    assert from_target(target.PreconditionFailed(condition="If-Match")).fields == {"Condition": "If-Match"}


def test_a_subclass_counts_as_its_base() -> None:
    class WorkerGone(target.EtlCrashed):
        pass

    assert from_target(WorkerGone("x")).code == "EtlCrashed"


def test_in_a_header_it_is_one_line_of_what_a_header_may_hold() -> None:
    error = from_target(target.EtlExited("\x1b[31mred\x1b[0m\r\nand\x00 \x7f\x9b blue"))
    assert in_header(error) == "EtlExited: [31mred [0m and blue"


def test_an_unknown_error_says_nothing_of_itself() -> None:
    error = from_target(RuntimeError("secret path"))
    assert error.code == "InternalError"
    assert "secret" not in error.message


def test_an_s3_error_stays_as_it_is() -> None:
    error = S3Error("AccessDenied")
    assert from_target(error) is error
