"""The recipe of docs/production.md: a real nginx before the real TorchServe."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import psutil
import pytest
import requests

from archives.__main__ import main
from archives.serving.server import Server
from handlers.endpoint.json_schema import schemas
from tests import nginx
from tests.nginx import Nginx, needs_nginx
from tests.test_endpoint import PNG, post

pytestmark = [pytest.mark.server, needs_nginx]
# Longer than six attempts, a second apart, take.
PATIENCE = 60


@pytest.fixture(scope="module")
def proxy(endpoint: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    ports = endpoint.ports
    folder = tmp_path_factory.mktemp("nginx")
    with nginx.started(folder, ports.inference, ports.metrics, endpoint.inference_token) as running:
        yield running


def ask(
    proxy: Nginx,
    path: str = "predictions/demo",
    client: str = "alice",
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    **arguments: Any,
) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.request(
            method,
            f"{proxy.url}/{path}",
            headers={"Authorization": f"Bearer {proxy.tokens[client]}", **(headers or {})},
            verify=str(proxy.certificate),
            timeout=PATIENCE,
            **arguments,
        )


def raw(
    proxy: Nginx, method: str, path: str, headers: dict[str, str], body: bytes = b""
) -> tuple[int, Any, str | None]:
    """The path as it stands here, and headers that need not be true: status, JSON and challenge."""
    context = ssl.create_default_context(cafile=str(proxy.certificate))
    connection = http.client.HTTPSConnection(
        "localhost", proxy.port, context=context, timeout=PATIENCE
    )
    connection.request(method, path, body or None, headers)
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read()), answer.headers["WWW-Authenticate"]
    connection.close()
    return found


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def rotate(endpoint: Server, proxy: Nginx) -> None:
    command = ["rotate", "--folder", str(endpoint.folder), "--nginx-include", str(proxy.include)]
    assert main(command) == 0


def counted(endpoint: Server) -> float:
    """Requests that reached the server."""
    text = requests.get(f"{endpoint.metrics_url}/metrics", timeout=PATIENCE).text
    return sum(map(float, re.findall(r"^ts_inference_requests_total\{.*\} (\S+)$", text, re.M)))


def test_known_client_gets_what_the_server_answers(endpoint: Server, proxy: Nginx) -> None:
    answer = ask(proxy, "explanations/demo", files={"picture": PNG})
    assert answer.status_code == 200
    assert answer.json() == post(endpoint, "explanations", files={"picture": PNG}).json()
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-Id"])
    assert answer.headers["X-Request-Id"] in proxy.logs()
    overlay = ask(proxy, "explanations/demo", files={"picture": PNG}, data={"format": "overlay"})
    assert overlay.headers["Content-Type"] == "image/jpeg"


def test_servers_log_names_the_client(endpoint: Server, proxy: Nginx) -> None:
    identity = ask(proxy, client="carol", data=PNG).headers["X-Request-Id"]
    for _ in range(50):
        lines = "".join(file.read_text() for file in endpoint.logs.iterdir()).splitlines()
        if found := [line for line in lines if identity in line]:
            break
        time.sleep(0.1)
    assert json.loads(found[0])["client"] == "carol"


def test_certificate_is_verified(proxy: Nginx) -> None:
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(proxy.url, verify=str(proxy.folder / "prometheus.pem"), timeout=PATIENCE)


def test_wrong_request_gets_the_servers_own_words(proxy: Nginx) -> None:
    answer = ask(proxy, data=b"no picture")
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "PictureError")
    assert ask(proxy, "predictions/nobody").json()["type"] == "ModelNotFoundException"


def test_unknown_client_does_not_reach_the_server(endpoint: Server, proxy: Nginx) -> None:
    before = counted(endpoint)
    alice = proxy.tokens["alice"]
    for headers in (
        {},
        bearer("0" * 64),
        bearer(endpoint.inference_token),
        bearer(alice[:-1]),
        bearer(alice + "0"),
        {"Authorization": alice},
        {"X-Whybox-Client": "alice"},
    ):
        status, body, challenge = raw(proxy, "POST", "/predictions/demo", headers, PNG)
        assert (status, challenge) == (401, "Bearer")
        jsonschema.validate(body, schemas()["error"])
    assert counted(endpoint) == before
    assert ask(proxy, data=PNG).status_code == 200
    assert counted(endpoint) > before


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/models",
        "/models/demo",
        "/metrics",
        "/ping",
        "/token?type=inference",
        "/explanations",
        "/predictions/../models",
        "/predictions/%2e%2e/metrics",
        "/predictions/..%2fping",
        "//models",
    ],
)
def test_other_paths_do_not_pass(proxy: Nginx, path: str) -> None:
    status, body, _ = raw(proxy, "GET", path, bearer(proxy.tokens["alice"]))
    assert status == 404
    jsonschema.validate(body, schemas()["error"])
    assert "/explanations/" in body["error"]["message"]


@pytest.mark.parametrize(
    ("path", "kind", "text"),
    [
        ("page/", "text/html", "<title>Whybox"),
        ("page/page.js", "text/javascript", "predictions"),
        ("page/shared.css", "text/css", "color-scheme"),
    ],
)
def test_page_is_served_where_it_asks(proxy: Nginx, path: str, kind: str, text: str) -> None:
    answer = requests.get(f"{proxy.url}/{path}", verify=str(proxy.certificate), timeout=PATIENCE)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, kind)
    assert text in answer.text
    assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    # As the page's script writes it.
    described = ask(proxy, method="GET", headers={"describe": "True"}).json()
    assert described["name"] == "demo"
    assert raw(proxy, "GET", "/page/../nginx.conf", {})[0] == 404


def test_kserve_passes(proxy: Nginx) -> None:
    assert ask(proxy, "v1/models/demo:predict", json={"instances": []}).status_code == 400
    assert ask(proxy, "v2/models/demo/infer", json={"inputs": []}).status_code == 400


def test_too_large_a_body(proxy: Nginx) -> None:
    headers = {**bearer(proxy.tokens["alice"]), "Content-Length": str(64 * 2**20 + 1)}
    status, body, _ = raw(proxy, "POST", "/predictions/demo", headers)
    assert (status, body["error"]["message"]) == (413, "body: allowed at most 64 MiB")
    jsonschema.validate(body, schemas()["error"])


def test_too_many_requests_of_one_client(proxy: Nginx) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(
            pool.map(lambda _: ask(proxy, "predictions/nobody", "bob", "GET"), range(80))
        )
    refused = [each for each in answers if each.status_code == 429]
    assert {each.status_code for each in answers} == {404, 429}
    assert refused[0].headers["Retry-After"] == "1"
    jsonschema.validate(refused[0].json(), schemas()["error"])
    assert ask(proxy, "predictions/nobody", "carol", "GET").status_code == 404


def test_no_request_fails_while_tokens_are_replaced(endpoint: Server, proxy: Nginx) -> None:
    old = endpoint.inference_token
    over = threading.Event()

    def go_on(verb: str) -> list[int]:
        codes = []
        while not over.is_set():
            codes.append(ask(proxy, f"{verb}/demo", data=PNG).status_code)
            time.sleep(0.2)
        return codes

    with ThreadPoolExecutor(3) as pool:
        going = [pool.submit(go_on, verb) for verb in ("predictions", "explanations")]
        time.sleep(0.5)
        slow = pool.submit(slowly, proxy, lambda: replace(endpoint, proxy, 3))
        assert slow.result() == 200
        time.sleep(0.5)
        over.set()
        codes = [code for each in going for code in each.result()]
    assert set(codes) == {200}
    assert len(codes) >= 6
    answer = requests.get(f"{endpoint.inference_url}/ping", headers=bearer(old), timeout=PATIENCE)
    assert (answer.status_code, answer.json()["type"]) == (400, "InvalidKeyException")


def replace(endpoint: Server, proxy: Nginx, times: int) -> None:
    for _ in range(times):
        rotate(endpoint, proxy)
        proxy.reload()
        time.sleep(0.5)


def slowly(proxy: Nginx, meanwhile: Callable[[], None]) -> int:
    """The status of a request half of whose picture comes after `meanwhile`."""
    context = ssl.create_default_context(cafile=str(proxy.certificate))
    connection = http.client.HTTPSConnection("localhost", proxy.port, context=context)
    connection.putrequest("POST", "/predictions/demo")
    for name, text in bearer(proxy.tokens["carol"]).items():
        connection.putheader(name, text)
    connection.putheader("Content-Length", str(len(PNG)))
    connection.endheaders(PNG[:1000])
    meanwhile()
    connection.send(PNG[1000:])
    status = connection.getresponse().status
    connection.close()
    return status


def test_refused_token_is_retried_and_then_said(endpoint: Server, proxy: Nginx) -> None:
    rotate(endpoint, proxy)
    began = time.monotonic()
    answer = ask(proxy, data=PNG)
    assert 4 < time.monotonic() - began < 15
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    jsonschema.validate(answer.json(), schemas()["error"])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, proxy, data=PNG)
        time.sleep(0.5)
        proxy.reload()
        assert waiting.result().status_code == 200


def test_server_that_is_down(tmp_path_factory: pytest.TempPathFactory) -> None:
    with nginx.started(tmp_path_factory.mktemp("down"), 1, 1, "none") as alone:
        answer = ask(alone, data=PNG)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json()["error"]["type"] == "UnavailableError"


def test_metrics_for_a_client_with_a_certificate(proxy: Nginx) -> None:
    url = f"https://localhost:{proxy.metrics_port}"
    names = ("prometheus.pem", "prometheus-key.pem")
    certificate, key = (str(proxy.folder / name) for name in names)
    with requests.Session() as session:
        session.trust_env, session.verify = False, str(proxy.certificate)
        assert session.get(f"{url}/metrics", timeout=PATIENCE).status_code == 400
    with requests.Session() as session:
        session.trust_env, session.verify = False, str(proxy.certificate)
        session.cert = (certificate, key)
        assert "ts_inference_requests_total" in session.get(f"{url}/metrics", timeout=60).text
        assert session.get(f"{url}/models", timeout=PATIENCE).status_code == 404


def test_server_listens_on_loopback_only(endpoint: Server) -> None:
    connections = [
        each
        for process in endpoint.processes()
        for each in psutil.Process(process).net_connections("inet")
        if each.status == psutil.CONN_LISTEN
    ]
    assert {each.laddr.ip.removeprefix("::ffff:") for each in connections} == {"127.0.0.1"}
    assert {each.laddr.port for each in connections} == set(vars(endpoint.ports).values())


def test_no_token_is_logged(endpoint: Server, proxy: Nginx) -> None:
    tokens = [*proxy.tokens.values(), endpoint.inference_token, endpoint.management_token]
    ask(proxy, data=PNG)
    ask(proxy, data=b"no picture")
    raw(proxy, "POST", "/nowhere?token=in-the-query", bearer(tokens[0]))
    with ThreadPoolExecutor(1) as pool:
        rotate(endpoint, proxy)
        refused = pool.submit(ask, proxy, data=PNG)
        time.sleep(0.5)
        proxy.reload()
        assert refused.result().status_code == 200
    tokens += [endpoint.inference_token, endpoint.management_token, "in-the-query"]
    logs = [proxy.logs(), *(file.read_text() for file in endpoint.logs.iterdir())]
    assert '"alice" POST "/predictions/demo" 200' in logs[0]
    for token in tokens:
        assert not any(token in text for text in logs)
