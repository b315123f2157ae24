"""Stands in for a server of one policy: answers once the file GO is there, and says who it is.

python stub_backend.py PORT POLICY GO
"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT, POLICY, GO = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        while not GO.exists():
            time.sleep(0.1)
        answer = {"model": f"/private/{POLICY}", "said": POLICY, "asked": asked}
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream" if asked.get("stream") else "application/json")
        self.end_headers()
        data = json.dumps(answer)
        text = f"data: {data}\n\ndata: {data}\n\ndata: [DONE]\n\n" if asked.get("stream") else data
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True


Server(("127.0.0.1", PORT), Handler).serve_forever()
