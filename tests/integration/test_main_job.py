"""The main job, end to end, however the server is run: what boto3 puts comes back transformed."""

from __future__ import annotations

import hashlib
import os

from tests.running import RunningServer
from transom.client.boto import get_object


def test_object_comes_back_through_the_query_parameter_and_the_implicit_view(server: RunningServer) -> None:
    s3 = server.client()
    s3.create_bucket(Bucket="main-job")
    data = os.urandom(1 << 20)
    s3.put_object(Bucket="main-job", Key="a b/ü.bin", Body=data)
    wanted = hashlib.md5(data).hexdigest().encode()
    asked = get_object(s3, Bucket="main-job", Key="a b/ü.bin", etl="md5")
    assert asked["Body"].read() == wanted
    viewed = s3.get_object(Bucket="main-job--etl--md5", Key="a b/ü.bin")
    assert viewed["Body"].read() == wanted
    assert viewed["ETag"] == asked["ETag"]
    assert s3.get_object(Bucket="main-job", Key="a b/ü.bin")["Body"].read() == data


def test_pipeline_of_constants_is_the_same_for_every_object(server: RunningServer) -> None:
    s3 = server.client()
    s3.create_bucket(Bucket="constants")
    s3.put_object(Bucket="constants", Key="any", Body=os.urandom(100))
    answer = get_object(s3, Bucket="constants", Key="any", etl="hello_world>>md5")
    assert answer["Body"].read() == b"ed076287532e86365e841e92bfc50d8c"
