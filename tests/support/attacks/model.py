"""What a try is, and the program that carries out many of them in one process."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass


@dataclass(frozen=True)
class Try:
    """One way to reach what is not one's own.

    Attributes:
        id: unique name.
        where: ``terminal``, ``kernel``, ``browser`` (with the attacker's cookies) or ``restart`` (of the session).
        what: what is tried, for the table.
        why: what stops it, for the table.
        control: for whom the same try succeeds: ``victim``, ``own``, ``root`` or ``admin``.
        code: body of a Python function of ``t``; empty for those that the test itself performs.
    """

    id: str
    where: str
    what: str
    why: str
    control: str
    code: str = ""


def program(tries: list[Try], facts: str) -> str:
    """Python that performs tries with these facts (JSON) and prints ``{id: [succeeded, said, seconds]}``."""
    functions = [
        f"def try_{one.id.replace('-', '_')}(t):\n{textwrap.indent(textwrap.dedent(one.code).strip(), '    ')}"
        for one in tries
    ]
    names = ", ".join(f"{one.id!r}: try_{one.id.replace('-', '_')}" for one in tries)
    return RUNNER.format(functions="\n".join(functions), names=names, facts=facts)


RUNNER = '''
import ctypes, glob, json, os, pathlib, signal, socket, subprocess, threading, time, urllib.error, urllib.request

class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *a): return None

def call(method, url, body=None, **headers):
    """Status and text of a request without redirects and without the environment's proxies."""
    data = None if body is None else json.dumps(body).encode()
    head = {{k.replace("_", "-"): v for k, v in headers.items()}} | {{"Content-Type": "application/json"}}
    asked = urllib.request.Request(url, data, head, method=method)
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({{}}))
    try:
        with opener.open(asked, timeout=20) as answer: return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get("Location") or error.read().decode(errors="replace")

def hub(t, method, path, body=None, **more):
    return call(method, t["hub"] + path, body, Authorization="token " + t["hub_token"], **more)

def rucio(t, method, path, body=None, **more):
    return call(method, t["rucio"] + path, body, X_Rucio_Auth_Token=t["rucio_token"], **more)

def good(answer): return answer[0] < 300

def done(command):
    """Whether a shell command succeeds, with what it said."""
    ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=10)
    if ran.returncode: raise OSError((ran.stderr or ran.stdout).strip()[-200:])
    return ran.stdout or "done"

def connect(host, port):
    with socket.create_connection((host, port), 1): return True

def unix(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(1); s.connect(path); return s.recv(10) or "connected"

def same_process(t):
    """Whether the number names the very process that is meant: its start time tells."""
    return open("/proc/%d/stat" % t["pid"]).read().rsplit(")", 1)[1].split()[19] == t["start"]

libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p

def c(result):
    if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result + 1

{functions}

def _late(*_): raise TimeoutError("no end")

def _all(t):
    said = {{}}
    before = signal.signal(signal.SIGALRM, _late)
    for name, function in {{ {names} }}.items():
        signal.alarm(25)
        began = time.monotonic()
        try: found = function(t)
        except Exception as error: said[name] = [False, (type(error).__name__ + ": " + str(error))[:300]]
        else: said[name] = [bool(found), str(found)[:300]]
        finally: signal.alarm(0)
        said[name].append(round(time.monotonic() - began, 1))
    signal.signal(signal.SIGALRM, before)
    print("@@" + json.dumps(said) + "@@", flush=True)

_all(json.loads({facts!r}))
'''
