"""Stands in for a server of one policy: answers once the file GO is there, and says who it is.

python stub_backend.py PORT POLICY GO
"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT, POLICY, GO = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
SAID = f"I am {POLICY}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        while not GO.exists():
            time.sleep(0.1)
        answer = {"model": f"/private/{POLICY}", "id": "req_0", "said": POLICY, "asked": asked}
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream" if asked.get("stream") else "application/json")
        self.end_headers()
        if asked.get("stream"):
            events = [json.dumps(answer | {"choices": [choice]}) for choice in self.events("messages" in asked)]
            text = "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"])
        else:
            text = json.dumps(answer | {"choices": [self.choice("messages" in asked)]})
        self.wfile.write(text.encode())

    def choice(self, chat: bool) -> dict[str, object]:
        said = {"message": {"role": "assistant", "content": SAID}} if chat else {"text": SAID}
        return {"index": 0, "finish_reason": "stop", **said}

    def events(self, chat: bool) -> list[dict[str, object]]:
        """The same in two pieces."""
        pieces = [SAID[:4], SAID[4:]]
        said = [{"delta": {"content": piece}} if chat else {"text": piece} for piece in pieces]
        return [{"index": 0, "finish_reason": end, **piece} for piece, end in zip(said, (None, "stop"), strict=True)]

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True


Server(("127.0.0.1", PORT), Handler).serve_forever()
