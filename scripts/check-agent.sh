#!/usr/bin/env bash
# docs/agent.md and docs/proxy.md on real programs: their blocks are taken from
# them as they stand there. One agent keeps nginx, PostgreSQL, HAProxy, uvicorn, a
# Java server and a client in certificates that live 20 s; a service without TLS
# is behind the proxy. All are asked all the time, and no request may fail, while
# certificates change and hooks fail on purpose.
#
#   scripts/check-agent.sh [ARTSTORE_PKI_BINARY]
#
# ARTSTORE_AGENT_ROTATIONS has the number of rotations, 3 if absent. The second of each
# five has hooks that fail. Only paths and ports are replaced.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pki=${1:-${ARTSTORE_PKI:-}}
# shellcheck source=scripts/checks.sh
. scripts/checks.sh
readonly rotations=${ARTSTORE_AGENT_ROTATIONS:-3}
readonly names="nginx postgresql haproxy uvicorn java reports" broken="nginx haproxy"
# Debian's own, which has Debian's packages.
readonly python=/usr/bin/python3 check=scripts/check-agent.py
nginx=$(PATH=$PATH:/usr/sbin command -v nginx)
haproxy=$(PATH=$PATH:/usr/sbin command -v haproxy)
postgres=$(find /usr/lib/postgresql/*/bin -name postgres | sort -V | tail -n 1)
built='' guide=docs/agent.md url='' pids=() load='' proxied=''

# stop_server of checks.sh knows one server; here are several.
stop_server() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  pids=()
}

# block NAME prints the blocks of that name in $guide, made to fit this machine.
block() {
  guide_block "$1" |
    sed -e "s|/srv/pki|$work/pki|g" -e "s|https://ca.internal:9443|$url|g" -e "s|/run/artstore-agent|$work/run|g" \
      -e "s|/var/lib/postgresql/15/main|$work/db/data|g" -e "s|/run/haproxy.pid|$work/run/haproxy.pid|g" \
      -e "s|lists\.pem|crl.pem|g" -e "s|listen 443 |listen 127.0.0.1:$nginx_port |" -e "s|localhost:443\b|localhost:$nginx_port|" \
      -e "s|catalogue.internal:8000|127.0.0.1:$python_port|" -e "s|:8000\b|:$python_port|" \
      -e "s|port=5432|port=$db_port|" -e "s|:5432\b|:$db_port|" -e "s|bind :8443|bind 127.0.0.1:$haproxy_port|" -e "s|:8443\b|:$haproxy_port|" \
      -e "s|\b8444\b|$java_port|" -e "s|\b8081\b|$control_port|" -e "s|:8080\b|:$plain_port|" -e "s|:9110\b|:$metrics_port|"
}

# other GUIDE NAME: a block of another guide.
other() {
  local guide=$1 # guide_block reads it
  block "$2"
}

# start LOG COMMAND…: a server that is ended with this script.
start() {
  local log=$work/$1.log
  shift
  "$@" >"$log" 2>&1 &
  server=$!
  pids+=("$server")
}

# as_db COMMAND…: as the user of PostgreSQL, which refuses to be root.
as_db() {
  if [ "$(id -u)" -eq 0 ]; then
    set -- setpriv --reuid=postgres --regid=postgres --clear-groups "$@"
  fi
  HOME=$work/db PGDATA=$work/db/data "$@"
}

prepare() {
  build_if_absent
  mkdir -p "$work/bin" "$work/pki" "$work/db" "$work/run" "$work/java"
  chmod 711 "$work" "$work/pki" # the user of PostgreSQL passes through
  cp "$pki" "$work/bin/artstore-pki"
  export PATH=$work/bin:${postgres%/*}:$PATH PGHOSTADDR=127.0.0.1
  read -r nginx_port db_port haproxy_port python_port java_port control_port plain_port metrics_port < <("$python" "$check" ports 8)
  [ "$(id -u)" -ne 0 ] || chown postgres: "$work/db"
  block Server.java >"$work/java/Server.java"
  { # both take long
    as_db initdb --no-sync -A peer -E UTF8 --locale C >"$work/postgres.log" 2>&1 &&
      javac -d "$work/java" "$work/java/Server.java" >"$work/java.log" 2>&1
  } &
  built=$!
}

start_authority() {
  must "init" artstore-pki init --dir "$work/pki/ca" --dns localhost --plain-keys --lifetime 20s
  sed -i 's/^  min: .*/  min: 10s/' "$work/pki/ca/pki.yaml"
  other docs/mtls-guide.md profiles >>"$work/pki/ca/pki.yaml"
  echo '  "balancer": {names: ["localhost"]}
  "orders": {names: ["localhost"]}
  "storage": {names: ["storage.internal", "localhost"]}' >>"$work/pki/ca/pki.yaml"
  start serve artstore-pki serve --dir "$work/pki/ca" --listen 127.0.0.1:0 --ready-file "$work/url" --audit-log "$work/run/audit"
  wait_for_file "$work/url"
  url=https://localhost:$(sed 's/.*://' "$work/url")
}

start_agent() {
  local service
  (umask 077; echo 'a password of the key store' >"$work/pki/orders.password")
  for service in www database balancer catalogue orders reports; do
    must "token $service" artstore-pki token "$service" --dir "$work/pki/ca" --out "$work/pki/$service.token"
  done
  block agent.yaml >"$work/agent.yaml"
  [ "$(id -u)" -eq 0 ] || sed -i '/owner: postgres/d' "$work/agent.yaml"
  start agent artstore-pki agent --config "$work/agent.yaml" --log-level debug --log-format json
  for service in www db balancer catalogue orders reports; do wait_for_file "$work/pki/$service/crl.pem"; done
}

start_nginx() {
  other docs/mtls-guide.md nginx.conf >"$work/site.conf"
  cat >"$work/nginx.conf" <<END
daemon off;
worker_shutdown_timeout 1m;
pid $work/run/nginx.pid;
error_log $work/nginx.log info;
events {}
http {
  access_log off;
  client_body_temp_path $work/run/body; proxy_temp_path $work/run/proxy; fastcgi_temp_path $work/run/fastcgi;
  uwsgi_temp_path $work/run/uwsgi; scgi_temp_path $work/run/scgi;
  include $work/site.conf;
}
END
  # The guide's "nginx" is this one. It can be told to fail, and notes when it did first.
  cat >"$work/bin/nginx" <<END
#!/bin/sh
if [ -e $work/fail ] && [ "\$1" = -s ]; then
  echo "told to fail" >&2
  [ -e $work/hook-failed ] || date +%s.%N >$work/hook-failed
  exit 3
fi
exec $nginx -e $work/nginx.log -c $work/nginx.conf "\$@"
END
  chmod +x "$work/bin/nginx"
  start nginx.out nginx
}

start_postgres() {
  must "initdb and javac" wait "$built"
  other docs/mtls-guide.md postgresql.conf | as_db tee -a "$work/db/data/postgresql.conf" >/dev/null
  other docs/mtls-guide.md pg_hba.conf | as_db tee "$work/db/data/pg_hba.conf" >/dev/null
  other docs/mtls-guide.md pg_ident.conf | as_db tee "$work/db/data/pg_ident.conf" >/dev/null
  start postgres as_db postgres -F -p "$db_port" -k "$work/db" -h 127.0.0.1
  until_ok "PostgreSQL runs" env -u PGHOSTADDR pg_isready -q -h "$work/db" -p "$db_port"
  must "createuser" as_db env -u PGHOSTADDR createuser -h "$work/db" -p "$db_port" reader
}

start_programs() {
  other docs/mtls-guide.md identity.py >"$work/identity.py"
  other docs/mtls-guide.md service.py >"$work/service.py"
  other docs/mtls-guide.md psql >"$work/psql.sh"
  RELOAD=2 start uvicorn "$python" "$work/service.py" "$work/pki/catalogue" "$python_port"
  start_nginx
  start_postgres
  start java java -cp "$work/java" -Xmx64m Server "$work/pki/orders" "$work/pki/orders.password"
  block haproxy.cfg >"$work/haproxy.cfg"
  start haproxy "$haproxy" -W -f "$work/haproxy.cfg" -p "$work/run/haproxy.pid"
}

# start_proxy: a service that knows no TLS and answers with the name that its proxy
# gives it. The proxies are those of docs/proxy.md, at a free port and at a socket.
start_proxy() {
  guide=docs/proxy.md
  cat >"$work/plain.py" <<'END'
import http.server, sys
class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = f"{self.headers.get_all('x-client-identity')}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer.request_queue_size = 128
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Service).serve_forever()
END
  start plain "$python" "$work/plain.py" "$plain_port"
  must "token storage" artstore-pki token storage --dir "$work/pki/ca" --out "$work/storage.token"
  block server | sed -e "s|artstore-pki|exec artstore-pki|" -e "s|--listen :$haproxy_port|--listen 127.0.0.1:0 --ready-file $work/proxy|" -e 's|--allow ingester|--allow reports.internal|' \
    -e "s|https://ca:9443|$url|" -e "s|storage.token|$work/storage.token|" -e "s|/var/lib/storage-proxy|$work/pki/storage|" -e 's|127.0.0.1:9091|127.0.0.1:0|' >"$work/proxy-server.sh"
  start proxy-server sh -e "$work/proxy-server.sh"
  wait_for_file "$work/proxy"
  proxied=$(sed 's/.*://' "$work/proxy")
  block client | sed -e "s|artstore-pki|exec artstore-pki|" -e "s|/run/app/storage.sock|$work/run/storage.sock --protocol http|" -e "s|storage:$haproxy_port|localhost:$proxied|" \
    -e "s|/var/lib/app/identity|$work/pki/reports|g" >"$work/proxy-client.sh"
  start proxy-client sh -e "$work/proxy-client.sh"
  guide=docs/agent.md
}

# curl_as OPTION…: with the certificate of reports, of one generation.
curl_as() {
  local at
  at=$(dirname "$(realpath "$work/pki/reports/tls.crt")")
  curl -sS --fail --noproxy '*' --max-time 60 --cacert "$at/ca.crt" --cert "$at/tls.crt" --key "$at/tls.key" "$@"
}

check_proxy() {
  until_ok "proxy: a certificate gets in" curl_as -H 'X-Client-Identity: admin' -H 'X_Client_Identity: admin' "https://localhost:$proxied/"
  said "… and the service is told its name only" "^\['reports.internal'\]$"
  refused "proxy: none does not" 'certificate required|reset|broken pipe|alert' curl -sS --noproxy '*' --cacert "$work/pki/reports/ca.crt" "https://localhost:$proxied/"
  until_ok "proxy: a program without TLS gets in" curl -sS --fail --max-time 60 --unix-socket "$work/run/storage.sock" http://localhost/
  said "… as the client" "^\['reports.internal'\]$"
}

status() { artstore-pki agent status --socket "$work/run/agent.sock" -o json >"$work/status"; }
delivered() { status && "$python" "$check" delivered "$work/status" "$@"; }
met() { delivered "$@" && "$python" "$check" met "$work/status" "$work/load.json"; }
# shellcheck disable=SC2086 # names
alarmed() { status && "$python" "$check" alarmed "$work/status" $broken; }

# patiently TEXT COMMAND…: a busy machine gets minutes.
patiently() {
  local text=$1 deadline=$((SECONDS + 180))
  shift
  until "$@" >"$work/out" 2>&1 </dev/null; do
    [ "$SECONDS" -lt "$deadline" ] || { tail -n 20 "$work"/*.log >&2; echo "FAIL $text" >&2; exit 1; }
    sleep 0.2
  done
  echo "ok   $text"
}

renew_all() {
  local name
  for name in $names; do must "renew $name" artstore-pki agent renew --socket "$work/run/agent.sock" "$name"; done
}

# failing: a command that fails, and a pid file that is away.
failing() {
  local name
  rm -f "$work/hook-failed"
  touch "$work/fail"
  mv "$work/run/haproxy.pid" "$work/run/haproxy.away"
  renew_all
  patiently "hooks that fail are in the status" alarmed
  grep -q 'told to fail' "$work/status" || { echo "FAIL the output of the hook is not in the status" >&2; exit 1; }
  must "… within" "$python" "$check" reaction "$work"
  cat "$work/out"
  must "… in the metrics" curl -sS --noproxy '*' "http://127.0.0.1:$metrics_port/metrics"
  for name in $broken; do said "… of $name" "^artstore_agent_alarm\{identity=\"$name\"\} 1$"; done
  refused "… and agent check says so" '^haproxy' artstore-pki agent check --socket "$work/run/agent.sock"
  mv "$work/run/haproxy.away" "$work/run/haproxy.pid"
  rm "$work/fail"
}

# rotation K: each third by itself, the others by order.
rotation() {
  "$python" "$check" serials "$work/status" >"$work/before"
  if [ "$(($1 % 5))" -eq 2 ]; then
    failing
  elif [ "$(($1 % 3))" -ne 0 ]; then
    renew_all
  fi
  patiently "rotation $1: each server serves its new certificate, and clients have met it" met "$work/before"
}

check_all() {
  local k
  patiently "each server serves its certificate" delivered
  check_proxy
  "$python" "$check" load "$work" "nginx=$nginx_port" "postgresql=$db_port" "haproxy=$haproxy_port" "uvicorn=$python_port" "java=$java_port" "proxy=$proxied" >"$work/load.log" 2>&1 &
  load=$!
  pids+=("$load")
  for ((k = 1; k <= rotations; k++)); do rotation "$k"; done
  patiently "the proxy has renewed its own certificate" "$python" "$check" changed "$work/load.json" proxy
  cp "$work/run/audit" "$work/audit"
  patiently "all are in use" delivered
  kill "$load"
  must "the load ends" wait "$load"
  must "no request has failed, and each generation was proved or alarmed" "$python" "$check" judge "$work"
  cat "$work/out"
}

prepare
start_authority
start_agent
start_proxy
start_programs
check_all
for guide in docs/agent.md docs/proxy.md; do whole; done
