"""Stands in for `vllm serve` where a test is about processes: a server with an engine process below it.

    python tests/stand_in_server.py serve MODEL --served-model-name M0 --host 127.0.0.1 --port 20001

It answers GET /v1/models as vLLM does. --start-fails: it ends before it answers, with an error in its log;
--calls-itself NAME: it says that it serves another model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("serve")
    parser.add_argument("model")
    parser.add_argument("--served-model-name", dest="name")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--tensor-parallel-size")
    parser.add_argument("--start-fails", action="store_true")
    parser.add_argument("--calls-itself")
    args = parser.parse_args()
    engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(f"engine {engine.pid}", flush=True)
    if args.start_fails:
        raise ValueError("the model has no room in 1 GiB")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"data": [{"id": args.calls_itself or args.name}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    HTTPServer((args.host, args.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
