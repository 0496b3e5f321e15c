"""The least that a hub takes for a user's server: it answers at its address."""

import os
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit


class Answer(BaseHTTPRequestHandler):
    """200 to everything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("X-JupyterHub-Version", os.environ.get("JUPYTERHUB_VERSION", "0"))
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Nothing to say."""


if __name__ == "__main__":
    address = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
    HTTPServer((address.hostname or "127.0.0.1", address.port or 0), Answer).serve_forever()
