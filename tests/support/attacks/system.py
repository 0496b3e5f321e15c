# ruff: noqa: E501 - a table is read by its columns
"""Processes, sockets, networks, memory, kernel interfaces and limits."""

from __future__ import annotations

from attacks.model import Try

_PID = "own process namespace: the number means nothing"
_NET = "own network namespace; the bridge's ports are isolated from one another"
_WALL = "firewall table: hub API and Rucio alone"
_CAPS = "no capabilities, not even in a user namespace of one's own"


def _proc(name: str, where: str, what: str, code: str) -> Try:
    return Try(
        name, where, what, _PID, "victim", f"p = '/proc/%d' % t['pid']\nreturn same_process(t) and {code}"
    )


def _port(name: str, where: str, what: str, host: str, port: str, control: str, why: str) -> Try:
    return Try(name, where, f"connect to {what}", why, control, f"return connect(t[{host!r}], t[{port!r}])")


TRIES = [
    _proc("proc-environ", "terminal", "the other's `/proc/<pid>/environ`", "open(p + '/environ').read()"),
    _proc("proc-memory", "terminal", "the other's `/proc/<pid>/mem`", "[open(p + '/maps').read(), open(p + '/mem', 'rb')]"),
    _proc("proc-cwd", "kernel", "the other's files through `/proc/<pid>/cwd` and `root`", "os.listdir(p + '/cwd/')"),
    _proc("proc-fd", "kernel", "the other's open files", "os.listdir(p + '/fd')"),
    _proc("signal", "terminal", "send a signal", "os.kill(t['pid'], signal.SIGCONT) is None"),
    _proc("ptrace", "terminal", "`ptrace` attach",
          "c(libc.ptrace(16, t['pid'], 0, 0)) and os.waitpid(t['pid'], 0) and c(libc.ptrace(17, t['pid'], 0, 0))"),
    Try("proc-list", "kernel", "find the other's processes", _PID, "victim", """
        return [p for p in glob.glob("/proc/[0-9]*/cmdline") if t["argument"] in open(p).read()]"""),
    Try("platform-environ", "terminal", "environment of hub, database, Rucio and issuer", _PID, "root", """
        names = [os.path.basename(t["state"]).encode(), b"dmsp_rucio"]
        found = []
        for pid in t["platform"]:
            try: text = open("/proc/%d/cmdline" % pid, "rb").read() + open("/proc/%d/environ" % pid, "rb").read()
            except OSError: continue
            found += [pid] * (t["state"].encode() in text)
        return found"""),
    Try("network-namespace", "terminal", "enter the other's network namespace", "`/run/netns` is not there; " + _CAPS,
        "root", "return done('nsenter --net=' + t['namespace'] + ' true')"),
    _port("server-port", "terminal", "the other's Jupyter server", "victim_address", "server_port", "root", _NET),
    _port("app-port", "kernel", "the other's program that listens on all addresses (Dask, TensorBoard)",
          "victim_address", "app_port", "root", _NET),
    _port("kernel-port", "kernel", "a port of the other's kernel", "localhost", "kernel_port", "victim", _NET),
    _port("database-port", "terminal", "PostgreSQL", "gateway_or_local", "database_port", "root", _WALL),
    _port("issuer-port", "kernel", "the issuer", "gateway_or_local", "issuer_port", "root", _WALL),
    _port("proxy-port", "terminal", "the public proxy", "gateway_or_local", "public_port", "root", _WALL),
    _port("proxy-api", "terminal", "traefik's API", "gateway_or_local", "proxy_api_port", "root", _WALL),
    _port("host-port", "terminal", "a program on all addresses of the host, by the bridge address", "gateway",
          "host_port", "root", _WALL),
    Try("host-address", "kernel", "the same by the host's other addresses", _WALL, "root", """
        found = []
        for address in t["host_addresses"]:
            try: found.append(connect(address, t["host_port"]))
            except OSError: pass
        return found"""),
    Try("bind-gateway", "kernel", "listen on the bridge's address in place of hub and Rucio", "not an address of the session",
        "root", "s = socket.create_server((t['gateway'], 0)); s.close(); return True"),
    Try("steal-address", "terminal", "take the other's address on the bridge", _CAPS, "root",
        "return done(t['in_net'] + ' ip address add ' + t['victim_address'] + '/24 dev ' + t['device'])"),
    Try("steal-address-userns", "terminal", "the same as root of a new user namespace",
        "the network namespace belongs to the machine's root", "root",
        "return done(t['in_net_user'] + ' ip address add ' + t['victim_address'] + '/24 dev ' + t['device'])"),
    Try("packet-socket", "kernel", "forge ARP with a packet socket", _CAPS, "root",
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close(); return True"),
    Try("raw-socket", "kernel", "forge IP packets with a raw socket", _CAPS, "root",
        "socket.socket(socket.AF_INET, socket.SOCK_RAW, 255).close(); return True"),
    Try("unix-socket", "terminal", "a unix socket of mode 0777 in the other's `/tmp`", "each session has its own `/tmp`",
        "victim", "return unix(t['unix'])"),
    Try("abstract-socket", "terminal", "an abstract unix socket of the other", "they belong to the network namespace",
        "victim", "return unix('\\0' + t['abstract'])"),
    Try("lake-socket", "kernel", "the socket on which the other's kernels reach the lake",
        "not in the session's file system", "victim",
        "s = socket.socket(socket.AF_UNIX); s.connect(t['runtime'] + '/dmsp/lake.sock'); s.close(); return True"),
    Try("docker-socket", "terminal", "sockets of container engines and of the system bus", "not in the session's file system",
        "root", """
        def reach(path):
            try: return unix(path)
            except OSError: return False
        return [p for p in t["engines"] if reach(p)]"""),
    Try("shared-memory", "kernel", "a System V shared memory segment of mode 0666", "own ipc namespace", "victim", """
        found = libc.shmget(t["shm_key"], 16, 0)
        at = libc.shmat(found, None, 0) if found >= 0 else None
        return at and ctypes.string_at(at, 6) == b"secret\""""),
    Try("mount", "terminal", "mount a file system", _CAPS, "root",
        "return done(t['in_mount'] + ' mount -t tmpfs none ' + t['mount_on'])"),
    Try("remount", "terminal", "make shared files writable from a mount namespace of one's own",
        "the kernel locks what it inherits from a more privileged namespace", "root", "return done(t['remount'])"),
    Try("unmount", "terminal", "unmount what hides the host's files, in a user namespace", "the same lock", "root",
        "return done(t['unmount'])"),
    Try("setuid", "terminal", "become root with a setuid program", "`no_new_privs`; empty capability bounding set", "root",
        "return 'uid=0' in done('su root -s /bin/sh -c id') and 'uid=0'"),
    Try("privileges", "kernel", "gain privileges at any later time", "`no_new_privs` and bounding set, for good", "root", """
        about = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
        return about["NoNewPrivs"] == "0" or int(about["CapBnd"], 16) > 0"""),
    Try("device", "terminal", "make a device file of a disk", _CAPS, "root",
        "p = t['mount_on'] + '/disk'; os.mknod(p, 0o60666, os.makedev(8, 0)); os.unlink(p); return True"),
    Try("fuse-device", "terminal", "open `/dev/fuse` and the host's disks", "a `/dev` with null, zero, random and terminals alone",
        "root", """
        def opens(path):
            try: return bool(open(path, "rb"))
            except OSError: return False
        return [d for d in ("/dev/fuse", "/dev/sda", "/dev/vda", "/dev/mem") if opens(d)]"""),
    Try("core-pattern", "terminal", "have the kernel run a program at a core dump", "belongs to the machine's root", "root",
        "return open('/proc/sys/kernel/core_pattern', 'r+')"),
    Try("sysctl", "terminal", "change the kernel's settings in a user namespace",
        "belong to the machine's root", "root", "return done(t['in_user'] + ' sh -c \"exec 9<>/proc/sys/kernel/core_pattern\"')"),
    Try("kernel-log", "kernel", "read the kernel's log", "`dmesg_restrict` (a setting of the machine) and no capability", "root",
        "return c(libc.klogctl(3, ctypes.create_string_buffer(4096), 4096))"),
    Try("cgroup", "terminal", "leave the control group, or set a `release_agent`", "`/sys` is not there", "root",
        "return [p for p in glob.glob('/sys/fs/cgroup/**/cgroup.procs', recursive=True)[:3] if open(p, 'r+')]"),
    Try("cgroup-mount", "terminal", "mount the control groups oneself", _CAPS, "root", "return done(t['cgroup_mount'])"),
    Try("processes", "terminal", "start more threads than the profile allows (a bounded fork bomb)",
        "limit on processes, see `dmsp doctor`", "root", """
        stop, started = threading.Event(), []
        threading.stack_size(65536)
        try:
            for _ in range(t["processes"] + 20):
                one = threading.Thread(target=stop.wait, daemon=True)
                one.start(); started.append(one)
        except RuntimeError: pass
        stop.set()
        for one in started: one.join()
        return len(started) > t["processes"] and len(started)"""),
]  # fmt: skip
