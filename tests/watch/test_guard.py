"""Who may ask the live page's server: this machine by its own names, its own page, and for commands the one who has the token."""

from __future__ import annotations

import pytest

pytest.importorskip("uvicorn")
from finestep.errors import BadInput
from finestep.store.commands import waiting
from finestep.watch.guard import names_of
from finestep.watch.serve import check_place

from .served import ask, cookie, make_open_trial, make_study, served, study_id

FOREIGN_HOSTS = [
    "evil.com", "evil.com:{port}", "localhost.evil.com:{port}", "127.0.0.1.evil.com:{port}", "127.0.0.1:1", "localhost:80",
    "127.0.0.2:{port}", "10.0.0.1:{port}", "0.0.0.0:{port}", "[::2]:{port}", "2130706433:{port}", "0x7f000001:{port}",
    "127.1:{port}", "127.0.0.1.:{port}", "127.0.0.1@evil.com:{port}", "evil.com#127.0.0.1:{port}", "localhost :{port}",
    "127.0.0.1:{port}, evil.com", "127.0.0.1:{port}:", "", "[::ffff:127.0.0.1]:{port}", "ⅼocalhost:{port}", "127.0.0.1:{port}/evil",
]  # fmt: skip
FOREIGN_ORIGINS = [
    "http://evil.com", "https://evil.com", "null", "http://localhost.evil.com:{port}", "http://127.0.0.1", "http://127.0.0.1:1",
    "http://127.0.0.1.evil.com:{port}", "file://", "chrome-extension://abc", "http://localhost:{port}", "http://[::1]:{port}",
    "http://127.0.0.1:{port}@evil.com", "http://evil.com?127.0.0.1:{port}", "http://evil.com#127.0.0.1:{port}", "http://10.0.0.1:{port}",
    "ws://127.0.0.1:{port}", "http://127.0.0.1:{port}.evil.com", "http://127.0.0.1:{port}1", "", "http://127.0.0.1:{port} http://evil.com",
]  # fmt: skip
METHODS = ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("watch") / "study", budget=2)


@pytest.fixture(scope="module")
def address(study):
    with served(study) as found:
        yield found


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_foreign_host_is_refused(host, address, study):
    name = host.format(port=address.port).encode("utf-8").decode("latin-1")
    for path in ("/", f"/study/{study_id(study)}/data"):
        status, _, text = ask(address, path, host=name)
        assert status in (400, 403)
        assert "test" not in text


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_a_foreign_origin_is_refused_also_with_the_cookie(origin, address, study):
    told = {"origin": origin.format(port=address.port), "cookie": cookie(address)}
    assert ask(address, f"/study/{study_id(study)}/data", **told)[0] == 403
    status, _, _ = ask(
        address,
        f"/study/{study_id(study)}/commands",
        method="POST",
        body='{"kind": "pause"}',
        content_type="application/json",
        **told,
    )
    assert status == 403
    assert not waiting(study)


def test_the_own_page_is_answered_by_every_name_of_this_machine(address, study):
    for name in ("127.0.0.1", "localhost", "[::1]", "LOCALHOST"):
        host = f"{name}:{address.port}"
        status, _, text = ask(address, f"/study/{study_id(study)}/data", host=host, origin=f"http://{host}".lower())
        assert status == 200
        assert '"trials"' in text


@pytest.mark.parametrize("method", METHODS)
def test_the_page_is_for_reading(method, address, study):
    for path in ("/", "/studies", f"/study/{study_id(study)}", f"/study/{study_id(study)}/data"):
        assert ask(address, path, method=method, cookie=cookie(address))[0] in (400, 405)


def test_a_command_needs_the_token_and_json(address, study):
    path, body = f"/study/{study_id(study)}/commands", '{"kind": "extend", "full_runs": 9}'
    json_type = {"content_type": "application/json"}
    assert ask(address, path, method="POST", body=body, **json_type)[0] == 401
    assert (
        ask(address, path, method="POST", body=body, cookie=f"finestep_token_{address.port}=wrong", **json_type)[0]
        == 401
    )
    assert ask(address, path, method="POST", body=body, cookie=cookie(address), content_type="text/plain")[0] == 415
    told = {"cookie": cookie(address), **json_type, "origin": f"http://127.0.0.1:{address.port}"}
    assert ask(address, path, method="POST", body="[]", **told)[0] == 400
    assert ask(address, path, method="POST", body='{"kind": "dance"}', **told)[0] == 400
    assert not waiting(study)
    status, _, text = ask(address, path, method="POST", body=body, **told)
    assert (status, len(waiting(study))) == (200, 1)
    assert "next start" in text


def test_the_token_leaves_the_address(address):
    status, headers, _ = ask(address, f"/?token={address.token}")
    assert (status, headers["location"]) == (303, "/")
    assert "HttpOnly" in headers["set-cookie"]
    assert "SameSite=Strict" in headers["set-cookie"]
    assert ask(address, "/?token=wrong")[0] in (200, 303)
    assert "set-cookie" not in ask(address, "/?token=wrong")[1]
    assert ask(address, f"//evil.com/?token={address.token}")[1]["location"].startswith("/evil.com")


def test_every_page_forbids_frames_and_guessing(address, study):
    for path in ("/", "/studies", f"/study/{study_id(study)}", "/nothing"):
        _, headers, _ = ask(address, path)
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers
    policy = ask(address, f"/study/{study_id(study)}")[1]["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e", "nul%00", "a" * 4000, "study", "%e2%80%ae"]
)
def test_no_path_is_taken_from_an_address(name, address):
    status, _, text = ask(address, f"/study/{name}/data")
    assert status in (400, 404)
    assert "root:" not in text


def test_others_read_nothing_without_the_token(study):
    with served(study, host="0.0.0.0") as address:
        for path in ("/", "/studies", f"/study/{study_id(study)}", f"/study/{study_id(study)}/events"):
            assert ask(address, path)[0] == 401
        assert ask(address, "/studies", cookie=cookie(address))[0] == 200
        assert ask(address, "/studies", authorization=f"Bearer {address.token}")[0] == 200
        assert ask(address, "/studies", cookie=cookie(address), host=f"10.1.2.3:{address.port}")[0] == 200
        assert ask(address, "/studies", cookie=cookie(address), host=f"evil.com:{address.port}")[0] == 403


def test_another_address_asks_for_a_token():
    for host, token in (
        ("0.0.0.0", None),
        ("gpu-box", None),
        ("127.0.0.1", "short"),
        ("127.0.0.1", "sixteen char;acters"),
    ):
        with pytest.raises(BadInput) as caught:
            check_place(host, token)
        assert caught.value.next_step
    check_place("127.0.0.1", None)
    check_place("gpu-box", "new")
    assert names_of("gpu-box") == ({"gpu-box"}, False)


def test_the_news_of_a_running_trial_come_as_events(tmp_path):
    folder = make_study(tmp_path / "study", budget=2)
    number = make_open_trial(folder, steps=700)
    with served(folder) as address:
        lines = _first_events(address, f"/study/{study_id(folder)}/events", wanted=2)
    points = lines["points"][str(number)]
    assert points[0][:2] == [1, 100]
    assert points[-1][:2] == [700, 70_000]
    assert len(points) <= 600
    assert lines["state"]["state"] == "stopped"
    assert lines["state"]["budget"] is None or lines["state"]["budget"] > 0


def _first_events(address, path, *, wanted):
    import json
    import socket

    with socket.create_connection(("127.0.0.1", address.port), timeout=60) as line:
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{address.port}\r\n\r\n".encode())
        text = ""
        while text.count("\ndata: ") < wanted or not text.endswith("\n\r\n"):
            text += line.recv(65536).decode()
    found, name = {}, ""
    for part in text.replace("\r\n", "\n").split("\n"):
        if part.startswith("event: "):
            name = part[7:]
        elif part.startswith("data: ") and name not in found:
            found[name] = json.loads(part[6:])
    return found
