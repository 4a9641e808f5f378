"""`ovseg serve`, as a process and through the runner."""

import http.client
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ovseg_cli.__main__ import run

pytest.importorskip("fastapi", reason="the extra serve is not here")


def test_it_answers_and_lets_what_is_in_hand_finish(chelsea: Path) -> None:
    command = [sys.executable, "-m", "ovseg_cli", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        port = int(process.stderr.readline().split("/segment")[0].rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        body = chelsea.read_bytes()
        connection.putrequest("POST", "/segment?classes=cat")
        connection.putheader("content-type", "image/png")
        connection.putheader("content-length", str(len(body)))
        connection.endheaders(body[:1000])
        health = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while not _in_hand(health):
            pass
        process.send_signal(signal.SIGTERM)
        connection.send(body[1000:])
        found = json.loads(connection.getresponse().read())
        assert found["classes"][0]["name"] == "cat"
        assert process.wait(60) == 0
        assert process.stderr.read() == ""


def _in_hand(connection: http.client.HTTPConnection) -> int:
    connection.request("GET", "/health")
    return int(json.loads(connection.getresponse().read())["requests"])


def test_a_port_that_is_taken_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(["serve", "--port", str(port)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"127.0.0.1:{port}: cannot listen there" in line
    assert run(["serve", "--port", "70000"]) == 2


def test_other_machines_are_let_in_with_a_warning_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr("ovseg.serving_api.serve", lambda *given, **_: asked.append(given))
    assert run(["serve"]) == run(["serve", "--host", "localhost"]) == 0
    assert capsys.readouterr().err == ""
    assert run(["serve", "--host", "0.0.0.0"]) == 0
    assert "without a password" in capsys.readouterr().err
    assert [given[2] for given in asked] == ["127.0.0.1", "localhost", "0.0.0.0"]


def test_a_page_for_other_machines_is_warned_of_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr("ovseg.serving_api.demo", lambda *given, **_: asked.append(given))
    assert run(["demo", "--host", "0.0.0.0", "--model", "a", "--model", "b"]) == 0
    assert "without a password" in capsys.readouterr().err
    assert asked == [(["a", "b"], "auto", "0.0.0.0", 7860)]


def test_pages_from_elsewhere_cannot_ask_by_a_name_that_leads_here() -> None:
    testclient = pytest.importorskip("starlette.testclient")
    from ovseg.serving.host import guarded, is_local

    async def app(scope: object, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    for host, name, status in (
        ("127.0.0.1", "127.0.0.1", 200),
        ("127.0.0.1", "evil.example", 400),
        ("0.0.0.0", "evil.example", 200),
    ):
        client = testclient.TestClient(guarded(app, host), base_url=f"http://{name}")
        assert client.get("/").status_code == status
    assert [is_local(each) for each in ("::1", "localhost", "192.168.0.1", "x")] == [
        *(True, True, False, False)
    ]
