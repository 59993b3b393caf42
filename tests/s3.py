"""A small server of S3 on this computer, in a process of its own: GDAL would hold the lock of Python while it waits.

Run as a script, it prints its port and serves until its standard input ends.
"""

import contextlib
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

KEY = "not-a-real-key"
_numbers = itertools.count()


class Bucket:
    """An empty bucket of the server. It is filled and read past GDAL."""

    def __init__(self, port: int) -> None:
        import boto3

        self.name = f"bucket{next(_numbers)}"
        self._client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}")
        self._client.create_bucket(Bucket=self.name)

    def __truediv__(self, key: str) -> str:
        return f"s3://{self.name}/{key}"

    def put(self, key: str, content: bytes | Path) -> str:
        """Store an object, and return its address."""
        data = content if isinstance(content, bytes) else content.read_bytes()
        self._client.put_object(Bucket=self.name, Key=key, Body=data)
        return self / key

    def get(self, key: str) -> bytes:
        """Return the content of an object."""
        content: bytes = self._client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return content

    def list(self) -> list[str]:
        """Return the keys of all objects, sorted."""
        return sorted(one["Key"] for one in self._client.list_objects_v2(Bucket=self.name).get("Contents", []))


@contextlib.contextmanager
def serving() -> Iterator[int]:
    """Run the server, and yield its port."""
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


def use_server(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let GDAL find the server and its credentials in the environment, as users do."""
    options = {
        "AWS_S3_ENDPOINT": f"127.0.0.1:{port}", "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": KEY, "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
    }  # fmt: skip
    for name, value in options.items():
        monkeypatch.setenv(name, value)


if __name__ == "__main__":
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)  # noqa: T201 - how the port is told
    sys.stdin.read()
