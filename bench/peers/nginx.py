"""nginx serving files: what a native static server does on this machine, as the upper mark.

It takes no signatures. Buckets are folders made by the first PUT into them (its WebDAV module).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from transom.bench.peers.process import Peer, PeerError, free_port, listens, server

CONFIG = """\
{user}
worker_processes 1;
daemon off;
pid {work}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    client_body_temp_path {work}/body;
    proxy_temp_path {work}/proxy;
    fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi;
    scgi_temp_path {work}/scgi;
    default_type application/octet-stream;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        root {root};
        location ~ ^/[^/]+$ {{ return 200; }}
        location / {{ dav_methods PUT DELETE; create_full_put_path on; }}
    }}
}}
"""


@contextmanager
def nginx(work: Path, *, cores: Sequence[int] = ()) -> Iterator[Peer]:
    """nginx with one worker process over `work`/files."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise PeerError("nginx: not installed (Debian: nginx-light)")
    root = work / "files"
    root.mkdir(parents=True, exist_ok=True)
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""  # else its worker may not read a private folder
    config = work / "nginx.conf"
    config.write_text(CONFIG.format(user=user, work=work, root=root, port=port), encoding="utf-8")
    argv = [program, "-c", str(config), "-p", str(work), "-e", "stderr"]
    with server("nginx", argv, lambda _: listens(port), log=work / "nginx.log", cores=cores) as pid:
        yield Peer("nginx", f"http://127.0.0.1:{port}", pid)
