"""What scripts/check-agent.sh asks again and again: the load, and the judgement of what was written.

  check-agent.py load WORK NAME=PORT...   requests until SIGTERM; WORK/load.json has what was served
  check-agent.py ports N                  free ports
  check-agent.py serials STATUS           "NAME SERIAL" of each identity
  check-agent.py delivered STATUS [OLD]   each identity is in use, and newer than in OLD
  check-agent.py met STATUS LOAD          the load has met the certificate of each server
  check-agent.py changed LOAD NAME        the load has met two certificates of that server
  check-agent.py alarmed STATUS NAME...   the failure of these is in the status
  check-agent.py reaction WORK            seconds from a hook that fails to the agent's record of it
  check-agent.py judge WORK               no request failed, each generation was proved or alarmed
"""
import collections, datetime, json, os, signal, socket, ssl, struct, subprocess, sys, threading

PAUSE = 0.1  # between two requests to one server
TIMEOUT = 60  # seconds, of one answer: a busy machine is no failure
SSL_REQUEST = struct.pack("!II", 8, 80877103)  # PostgreSQL's word before TLS


class Load:
    """Requests to each server, one after the other, each on a connection of its own."""

    def __init__(self, work, ports):
        sys.path.append(work)
        from identity import load  # that of docs/mtls-guide.md
        self.work, self.load, self.client, self.stop = work, load, f"{work}/pki/reports", threading.Event()
        with open(f"{work}/psql.sh") as f:
            self.psql = f.read()
        self.ports, self.done = ports, collections.Counter()
        self.failures, self.served = [], {name: [] for name in ports}

    def run(self):
        signal.signal(signal.SIGTERM, lambda *_: self.stop.set())
        threads = [threading.Thread(target=self.loop, args=(name, int(port))) for name, port in self.ports.items()]
        for t in threads:
            t.start()
        while not self.stop.wait(0.3):
            self.write()
        for t in threads:
            t.join()
        self.write()

    def write(self):
        with open(f"{self.work}/load.new", "w") as f:
            json.dump({"done": self.done, "failures": self.failures, "served": self.served}, f)
        os.replace(f"{self.work}/load.new", f"{self.work}/load.json")

    def loop(self, name, port):
        request = self.sql if name == "postgresql" else self.get
        while not self.stop.wait(PAUSE):
            try:
                serial = request(port)
            except Exception as e:
                self.failures.append(f"{datetime.datetime.now().time()} {name}: {e!r}")
                continue
            self.done[name] += 1
            if serial not in self.served[name]:
                self.served[name].append(serial)

    def get(self, port):
        with self.connect(port) as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = b""
            while part := s.recv(65536):
                answer += part
            if not answer.startswith(b"HTTP/1.1 200 ") or not answer.endswith(b"\n"):
                raise ValueError(answer[:300])
            return int(s.getpeercert()["serialNumber"], 16)

    def connect(self, port, before=lambda s: None):
        plain = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        try:
            before(plain)
            return self.load(self.client, ssl.PROTOCOL_TLS_CLIENT).wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise

    def sql(self, port):
        """The command of the guide with the files of one generation, then the certificate."""
        at = os.path.dirname(os.path.realpath(f"{self.client}/tls.crt"))
        done = subprocess.run(["sh", "-ec", self.psql.replace(self.client, at)], capture_output=True, text=True, timeout=TIMEOUT)
        if done.returncode or "/CN=reports" not in done.stdout:
            raise ValueError(done.stdout + done.stderr)

        def ask(plain):
            plain.sendall(SSL_REQUEST)
            if plain.recv(1) != b"S":
                raise ValueError("PostgreSQL has no TLS")

        with self.connect(port, ask) as s:
            return int(s.getpeercert()["serialNumber"], 16)


def identities(path):
    with open(path) as f:
        return json.load(f)["identities"]


def ports(n):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(n))]
    print(*(s.getsockname()[1] for s in held))


def serials(path):
    for i in identities(path):
        print(i["name"], i["serial"])


def delivered(path, old=None):
    before = {}
    if old:
        with open(old) as f:
            before = dict(line.split() for line in f)
    for i in identities(path):
        d = i["delivery"]
        if i["serial"] == before.get(i["name"]):
            sys.exit(f"{i['name']} has not been renewed")
        if i.get("problem") or d["state"] != "delivered" or d["serial"] != i["serial"] or d["proved"] != ("serves" in d):
            sys.exit(f"{i['name']}: {d}")


def met(path, load):
    with open(load) as f:
        served = json.load(f)["served"]
    for i in identities(path):
        if i["name"] in served and int(i["serial"], 0) not in served[i["name"]]:
            sys.exit(f"no client has met {i['serial']} of {i['name']}")


def changed(load, name):
    with open(load) as f:
        if len(json.load(f)["served"][name]) < 2:
            sys.exit(f"clients have met one certificate of {name}")


def alarmed(path, *names):
    for i in identities(path):
        d = i["delivery"]
        if i["name"] in names and not (d["alarm"] and d["failures"] >= 2 and d["hook_failed"] >= 2 and d["error"] and i["problem"]):
            sys.exit(f"{i['name']}: {d}")


def records(work):
    """What the agent has logged, one object a line."""
    with open(f"{work}/agent.log") as f:
        return [json.loads(line) for line in f if line.startswith("{")]


def when(text):
    return datetime.datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00").timestamp()


def reaction(work):
    with open(f"{work}/hook-failed") as f:
        failed = float(f.read())
    told = min(t for r in records(work) if r["msg"].startswith("the new files are not in effect") and (t := when(r["time"])) >= failed)
    print(f"{told - failed:.3f} s")
    if told - failed > 5:
        sys.exit("the agent took longer than 5 s")


def judge(work):
    with open(f"{work}/load.json") as f:
        load = json.load(f)
    print("requests:", *(f"{name} {n}" for name, n in load["done"].items()))
    if load["failures"] or len(load["done"]) != len(load["served"]):
        sys.exit("\n".join(load["failures"][:20]) or "a server was never asked")
    with open(f"{work}/audit") as f:
        issued = [json.loads(line) for line in f]
    proved, alarms = set(), set()
    for r in records(work):
        if r["msg"] == "delivered" and r["proved"]:
            proved.add(int(r["serial"], 0))
        if r["msg"] == "the new files are not in effect":
            alarms.add(int(r["serial"], 0))
    services = {i["service"]: i["name"] for i in identities(f"{work}/status") if "serves" in i["delivery"]}
    generations = [r for r in issued if r["outcome"] == "done" and r["service"] in services]
    for r in generations:
        if int(r["serial"]) not in proved | alarms:
            sys.exit(f"neither proved nor alarmed: {r}")
    print(f"{len(generations)} generations, {len(proved)} proved, {len(alarms)} with an alarm")


if __name__ == "__main__":
    do, args = sys.argv[1], sys.argv[2:]
    if do == "load":
        Load(args[0], dict(a.split("=") for a in args[1:])).run()
    else:
        {"ports": ports, "serials": serials, "delivered": delivered, "met": met, "changed": changed, "alarmed": alarmed, "reaction": reaction, "judge": judge}[do](*args)
