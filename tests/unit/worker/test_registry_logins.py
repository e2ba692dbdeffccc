"""What a registry is told of whoever may read it."""

import base64
import datetime
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tidemill.exception import ImageBuildError
from tidemill_worker import aws

KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
}
HOST = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"


def test_requests_are_signed_as_aws_signs_its_example() -> None:
    now = datetime.datetime(2015, 8, 30, 12, 36, 0, tzinfo=datetime.UTC)
    headers = {"host": "example.amazonaws.com"}
    signed = aws.sign("GET", headers, b"", *KEYS.values(), region="us-east-1", service="service", now=now)
    assert signed["x-amz-date"] == "20150830T123600Z"
    assert signed["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, "
        "Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
    )


class Registry(BaseHTTPRequestHandler):
    """Gives passwords as Amazon's does: the one that was signed for Frankfurt."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fine = "/eu-central-1/ecr/aws4_request" in self.headers["Authorization"] and body == b"{}"
        token = base64.b64encode(b"AWS:pass:word").decode()
        good, bad = (
            {"authorizationData": [{"authorizationToken": token}]},
            {"__type": "AccessDeniedException"},
        )
        answer = json.dumps(good if fine else bad).encode()
        self.send_response(200 if fine else 400)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("no_proxy", "*")
        yield
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("registry")
async def test_keys_of_aws_become_a_password_of_the_registry() -> None:
    assert await aws.login(HOST, KEYS) == "AWS:pass:word"
    with pytest.raises(ImageBuildError, match=r"gives no password for its registry: .*AccessDenied"):
        await aws.login(HOST.replace("eu-central-1", "us-east-1"), KEYS)
    with pytest.raises(ImageBuildError, match="the region of the registry"):
        await aws.login("registry.example.com", {**KEYS, "AWS_REGION": "evil.example.com/"})
