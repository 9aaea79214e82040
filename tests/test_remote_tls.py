"""A server behind HTTPS, with a certificate of one's own; and several models behind one address."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from remote_support import Exchange, LlamaServer, Proxy, llama_server, needs_server, rsd

from rsd_local import Params, Reasoner, RemoteRole, Weighting
from rsd_local.catalogue import find_trio
from rsd_local.config import Sampling
from rsd_local.errors import Cancelled, RemoteRefused, Unreachable
from rsd_local.remote.api import Piece, Wanted
from rsd_local.remote.llama_server import LlamaServer as Api
from rsd_local.remote.transport import Call, Transport

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the program openssl, which makes the certificate")
pytestmark = [needs_server]
ABACUS = Path(__file__).parent.parent / "rsd_local" / "abacus" / "models"
QUESTION, ANSWER = "(37+48)*6-129", "381"
NEVER = Params(weighting=Weighting("constant", probability=0.0))


class TlsProxy:
    """Speaks TLS in front of a server that does not.

    Args:
        port_behind: the server's.
        certificate: a PEM file with its key.

    Attributes:
        url: where it listens.
        ended: how many connections were ended by the client.
    """

    def __init__(self, port_behind: int, certificate: Path) -> None:
        self._behind, self.ended = port_behind, 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://localhost:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):  # ssl.SSLError is one: the client does not trust the certificate
            with self._context.wrap_socket(client, server_side=True) as inside:
                with socket.create_connection(("127.0.0.1", self._behind)) as server:
                    back = threading.Thread(target=self._pass, args=(server, inside), daemon=True)
                    back.start()
                    self._pass(inside, server)
                    self.ended += 1
                    with contextlib.suppress(OSError):
                        server.shutdown(socket.SHUT_RDWR)
                    back.join()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


def certificate(folder: Path, host: str) -> Path:
    """A self-signed certificate for a host, with its key in the same file."""
    file = folder / f"{host}.pem"
    made, key = folder / f"{host}.crt", folder / f"{host}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}", "-keyout", str(key), "-out", str(made)],
        check=True, capture_output=True,
    )  # fmt: skip
    file.write_bytes(key.read_bytes() + made.read_bytes())
    return file


@pytest.fixture(scope="module")
def server() -> Iterator[LlamaServer]:
    with llama_server(ABACUS / "abacus-target.gguf") as found:
        yield found


@pytest.fixture(scope="module")
def trusted(server: LlamaServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TlsProxy, Path]]:
    """A proxy, and the certificate that it shows."""
    file = certificate(tmp_path_factory.mktemp("tls"), "localhost")
    proxy = TlsProxy(server.port, file)
    yield proxy, file
    proxy.close()


def api(url: str) -> Api:
    return Api(Transport(RemoteRole(url, connect_timeout=20)))


@needs_openssl
def test_a_certificate_of_ones_own_is_taken_where_ssl_cert_file_names_it(
    trusted: tuple[TlsProxy, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole answer goes over TLS, and a cancel closes the connection there too."""
    proxy, file = trusted
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    trio = find_trio("abacus").with_models(lambda role: dataclasses.replace(role, threads=1))
    with Reasoner.open(dataclasses.replace(trio, target=RemoteRole(proxy.url, connect_timeout=20))) as reasoner:
        alone = reasoner.solve(QUESTION, strategy="target")
        assert alone.answer == ANSWER and reasoner.solve(QUESTION, NEVER).text == alone.text
    client, call = api(proxy.url), Call()
    tokens, ended = client.tokenize(f"{QUESTION}\n\n", opening=True), proxy.ended
    with pytest.raises(Cancelled):
        for event in client.write(Wanted(tokens, 900, None, Sampling(temperature=2.0), 0, 0), call):
            assert isinstance(event, Piece)
            call.cancel()
    end = time.monotonic() + 60
    while proxy.ended == ended:
        assert time.monotonic() < end, "the connection is still open"
        time.sleep(0.05)
    client.close()


@needs_openssl
def test_an_untrusted_certificate_is_refused_in_one_line(
    server: LlamaServer, trusted: tuple[TlsProxy, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown ones, and a trusted one that is another host's."""
    proxy, _ = trusted
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    with pytest.raises(Unreachable, match=f"the certificate of {proxy.url} is not trusted") as caught:
        api(proxy.url).facts()
    assert "SSL_CERT_FILE" in (caught.value.hint or "") and "\n" not in str(caught.value)
    done = rsd("solve", "--trio", "abacus", "-m", proxy.url, QUESTION)
    told = done.stderr.strip().splitlines()
    assert done.returncode != 0 and done.stdout == "" and len(told) <= 2, done.stderr
    assert f"the certificate of {proxy.url} is not trusted" in told[0]
    file = certificate(tmp_path, "elsewhere.example")
    other = TlsProxy(server.port, file)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    try:
        with pytest.raises(Unreachable, match="is not trusted"):
            api(other.url).facts()
    finally:
        other.close()


def test_https_where_nobody_speaks_it_is_one_line(server: LlamaServer) -> None:
    """A server may say so, or wait for more, as llama-server does."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    with client:
                        client.recv(1 << 16)
                        client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(Unreachable, match=r"https://127.0.0.1:\d+ does not speak TLS as it should") as caught:
            api(f"https://127.0.0.1:{listening.getsockname()[1]}").facts()
        assert "http://" in (caught.value.hint or "")
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"https://127.0.0.1:\d+ takes no connection within 1 s"):
        Api(Transport(RemoteRole(f"https://127.0.0.1:{server.port}", connect_timeout=1))).facts()
    assert time.monotonic() - began < 30


def asked_for(exchange: Exchange) -> str:
    """Which model a request names."""
    _, _, query = exchange.path.partition("model=")
    return str(json.loads(exchange.body).get("model", "")) if exchange.body else query


def listed(ports: dict[str, int]) -> list[dict[str, Any]]:
    """The models of several servers as one lists them."""
    found = []
    for name, port in ports.items():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/v1/models")
        found.append(json.loads(connection.getresponse().read())["data"][0] | {"id": name, "aliases": []})
        connection.close()
    return found


def test_of_several_models_behind_one_address_each_role_asks_for_its_own(server: LlamaServer) -> None:
    """Two llama-servers behind one address, each request passed on to that of the model it names: as llama-server's router does, which
    xllamacpp is built without. A request that named none, or the wrong one, would fail or change the text.
    """
    with llama_server(ABACUS / "abacus-draft.gguf") as second, Proxy(server.port) as proxy:
        ports = {"small": second.port, "large": server.port}
        named: dict[str, set[str]] = {}

        def route(exchange: Exchange) -> None:
            path, name = exchange.path.partition("?")[0], asked_for(exchange)
            named.setdefault(path, set()).add(name)
            if path == "/v1/models":
                exchange.say(200, json.dumps({"data": listed(ports)}).encode())
            elif name not in ports:
                exchange.say(400, json.dumps({"error": {"code": 400, "message": f"model {name!r} not found"}}).encode())
            else:
                exchange.proxy = SimpleNamespace(port_behind=ports[name], delay=0.0)  # type: ignore[assignment]
                exchange.pass_on()

        for path in ("/props", "/v1/models", "/tokenize", "/detokenize", "/apply-template", "/completion"):
            proxy.always[path] = route
        trio = find_trio("abacus").with_models(lambda role: dataclasses.replace(role, threads=1))
        direct = dataclasses.replace(
            trio, draft=RemoteRole(second.url, connect_timeout=20), target=RemoteRole(server.url, connect_timeout=20)
        )
        with Reasoner.open(direct) as apart:
            draft_text, target_text = (apart.solve(QUESTION, strategy=role).text for role in ("draft", "target"))  # type: ignore[arg-type]
        small, large = (RemoteRole(proxy.url, name, "llama-server", connect_timeout=20) for name in ("small", "large"))
        with Reasoner.open(dataclasses.replace(trio, draft=small, target=large)) as both:
            assert both.trio.servers()["draft"].facts.model == "small" and both.trio.servers()["target"].facts.model == "large"
            assert both.solve(QUESTION, NEVER).text == target_text
            accepted = both.solve(QUESTION, Params(weighting=Weighting("constant", probability=1.0)))
            assert accepted.text == draft_text and all(step.author == "draft" for step in accepted.steps)
            assert len({engine.parameters for engine in both.trio.servers().values()}) == 2, "two models of different sizes"
        assert named.pop("/v1/models") == {""} and set.union(*named.values()) == {"small", "large"}
        with pytest.raises(RemoteRefused, match="model 'huge' not found"):
            Api(Transport(RemoteRole(proxy.url, "huge"))).facts()
