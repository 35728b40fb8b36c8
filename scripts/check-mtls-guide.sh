#!/usr/bin/env bash
# docs/mtls-guide.md on real programs: its blocks are taken from it as they stand
# there, so that the guide cannot say what was not run. nginx, PostgreSQL, a
# Python service and a Go service get certificates from a real authority, let in
# who should get in, refuse the others, and serve a new certificate after a
# renewal. At the end, each message of the guide's table must have been seen.
#
#   scripts/check-mtls-guide.sh [ARTSTORE_PKI_BINARY]
#
# Only paths, ports and some host names are replaced. Ports are free ones, state
# is a temporary directory. PostgreSQL does not run as root: it gets the user
# postgres then.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pki=${1:-${ARTSTORE_PKI:-}}
# shellcheck source=scripts/checks.sh
. scripts/checks.sh
readonly guide=docs/mtls-guide.md
# Debian's own, which has Debian's packages.
readonly python=/usr/bin/python3
nginx=$(PATH=$PATH:/usr/sbin command -v nginx)
postgres=$(find /usr/lib/postgresql/*/bin -name postgres | sort -V | tail -n 1)
url='' nginx_port='' python_port='' db_port='' go_port='' initdb='' pids=()

# stop_server of checks.sh knows one server; here are several.
stop_server() {
  local pid
  for pid in "${pids[@]}"; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  pids=()
}

# block NAME prints the blocks of that name, made to fit this machine.
block() {
  guide_block "$1" |
    sed -e "s|/srv/pki|$work/pki|g" -e "s|https://ca.internal:9443|$url|g" -e 's|ca\.internal|localhost|g' \
      -e 's|0\.0\.0\.0:9443|127.0.0.1:0|g' -e "s|listen 443 |listen 127.0.0.1:$nginx_port |" \
      -e "s|catalogue.internal:8000|127.0.0.1:$python_port|" -e "s|port=5432|port=$db_port|"
}

# run NAME [ARGUMENT…] runs a block as a shell script.
run() {
  local name=$1
  shift
  block "$name" >"$work/block.sh"
  sh -e "$work/block.sh" "$@"
}

# no is refused, and remembers what was said.
no() {
  refused "$@"
  cat "$work/out" >>"$work/seen"
}

free_port() { "$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# as_db COMMAND…: as the user of PostgreSQL, which refuses to be root.
as_db() {
  if [ "$(id -u)" -eq 0 ]; then
    set -- setpriv --reuid=postgres --regid=postgres --clear-groups "$@"
  fi
  HOME=$work/db PGDATA=$work/db/data "$@"
}

serial() { openssl x509 -in "$1" -noout -serial; }

# serves FILE PORT [OPTION…]: the certificate on the wire is the one on disk.
serves() {
  local file=$1 port=$2
  shift 2
  openssl s_client -connect "127.0.0.1:$port" "$@" </dev/null 2>/dev/null >"$work/wire.pem" || true
  [ "$(serial "$work/wire.pem")" = "$(serial "$file")" ]
}

issue() {
  block issue >"$work/block.sh"
  sed -e "s/www/$1/g" "$work/block.sh" | sh -e
}

# get PORT NAME SERVICE [OPTION…]: with the certificate of the service, or with
# none (-); by the trust bundle alone, and by no resolver.
get() {
  local port=$1 name=$2 at=$work/pki/$3
  shift 3
  [ "$at" = "$work/pki/-" ] || set -- --cert "$at/tls.crt" --key "$at/tls.key" "$@"
  curl -sS --noproxy '*' --max-time 30 --connect-to "$name:$port:127.0.0.1:$port" --cacert "$work/pki/reports/ca.crt" "$@" "https://$name:$port/"
}

start_authority() {
  build_if_absent
  mkdir -p "$work/bin" "$work/pki" "$work/db"
  chmod 711 "$work" "$work/pki" # the user of PostgreSQL passes through
  cp "$pki" "$work/bin/artstore-pki"
  block fetch-lists >"$work/bin/fetch-lists" # replaced once the URL is known
  export PATH=$work/bin:${postgres%/*}:$PATH
  [ "$(id -u)" -ne 0 ] || chown postgres: "$work/db"
  as_db initdb --no-sync -A peer -E UTF8 --locale C >"$work/postgres.log" 2>&1 & # takes longest
  initdb=$!
  must "init" run init
  block profiles >>"$work/pki/ca/pki.yaml"
  block serve >"$work/block.sh"
  sed -i "s|^|exec |; s|\$| --ready-file $work/url|" "$work/block.sh"
  sed -i '/^exec  *--ready/d' "$work/block.sh"
  sh "$work/block.sh" >"$work/serve.log" 2>&1 &
  server=$!
  pids+=("$server")
  wait_for_file "$work/url"
  url=https://localhost:$(sed 's/.*://' "$work/url")
  block fetch-lists >"$work/bin/fetch-lists"
  chmod +x "$work/bin/fetch-lists"
  echo "ok   serve"
}

certificates() {
  local name
  for name in www catalogue reports; do must "issue $name" issue "$name"; done
  must "issue to one who is not on the guest list" issue query-module
  must "renew" run renew
  must "fetch the lists" fetch-lists "$work/pki/www"
  must "… there are two" test "$(grep -c 'BEGIN X509 CRL' "$work/pki/www/lists.pem")" -eq 2
  # Another authority, whose certificates say the same names.
  must "a foreign certificate" artstore-pki dev certs "$work/pki/foreign" --expired --not-yet-valid
  ln -s foreign/ingester-module "$work/pki/stranger"
}

start_python() {
  python_port=$(free_port)
  block identity.py >"$work/identity.py"
  block service.py >"$work/service.py"
  fetch-lists "$work/pki/catalogue"
  RELOAD=0.2 "$python" "$work/service.py" "$work/pki/catalogue" "$python_port" >"$work/python.log" 2>&1 &
  pids+=($!)
}

start_nginx() {
  nginx_port=$(free_port)
  mkdir "$work/nginx"
  block nginx.conf >"$work/nginx/site.conf"
  cat >"$work/nginx/nginx.conf" <<END
daemon off;
worker_shutdown_timeout 1m;
pid $work/nginx/pid;
error_log $work/nginx/error.log info;
events {}
http {
  access_log off;
  client_body_temp_path $work/nginx/body; proxy_temp_path $work/nginx/proxy; fastcgi_temp_path $work/nginx/fastcgi;
  uwsgi_temp_path $work/nginx/uwsgi; scgi_temp_path $work/nginx/scgi;
  include $work/nginx/site.conf;
}
END
  # The guide's "nginx" is this one.
  printf '#!/bin/sh\nexec %s -e %s -c %s "$@"\n' "$nginx" "$work/nginx/error.log" "$work/nginx/nginx.conf" >"$work/bin/nginx"
  chmod +x "$work/bin/nginx"
  nginx >"$work/nginx.log" 2>&1 &
  pids+=($!)
}

start_postgres() {
  db_port=$(free_port)
  must "initdb" wait "$initdb"
  (umask 077; artstore-pki token database --dir "$work/pki/ca" >"$work/db/token")
  [ "$(id -u)" -ne 0 ] || chown postgres: "$work/db/token"
  ln -s ../db/identity "$work/pki/db"
  must "issue, as the user of PostgreSQL" as_db artstore-pki issue --ca-url "$url" --token-file "$work/db/token" --out "$work/db/identity"
  must "fetch the lists" as_db fetch-lists "$work/pki/db"
  block postgresql.conf | as_db tee -a "$work/db/data/postgresql.conf" >/dev/null
  block pg_hba.conf | as_db tee "$work/db/data/pg_hba.conf" >/dev/null
  block pg_ident.conf | as_db tee "$work/db/data/pg_ident.conf" >/dev/null
  as_db postgres -F -p "$db_port" -k "$work/db" -h 127.0.0.1 >>"$work/postgres.log" 2>&1 &
  pids+=($!)
  until_ok "postgres" as_db pg_isready -q -h "$work/db" -p "$db_port"
  must "createuser" as_db createuser -h "$work/db" -p "$db_port" reader
}

# sql SERVICE [SUBSTITUTION]: the command of the guide with that certificate.
sql() {
  block psql >"$work/block.sh"
  sed -i "s|/pki/reports/tls|/pki/$1/tls|g; ${2:-}" "$work/block.sh"
  # Names go to this machine, and are checked all the same.
  PGHOSTADDR=127.0.0.1 sh -e "$work/block.sh"
}

# In TLS 1.3 a server judges after the client is done; its alert can get lost in
# the reset that follows. What proves a refusal is the good certificate before.
readonly turned_away='alert|reset|closed|broken pipe|not connected|failure in|empty reply|EOF'

check_python() {
  until_ok "Python: a certificate gets in" get "$python_port" localhost reports --fail
  no "Python: none does not" "$turned_away" get "$python_port" localhost -
  no "Python: a foreign one does not" "$turned_away" get "$python_port" localhost stranger
  must "Python: renew" artstore-pki renew --ca-url "$url" "$work/pki/catalogue"
  until_ok "Python: the new one is served" serves "$work/pki/catalogue/tls.crt" "$python_port"
  block clients.py >"$work/clients.py"
  must "Python: requests, httpx, aiohttp" "$python" "$work/clients.py" "$work/pki/reports" "https://localhost:$python_port/"
  must "… three answers" test "$(grep -c ' catalogue$' "$work/out")" -eq 3
  mkdir "$work/torn"
  cp "$work/pki/www/tls.crt" "$work/pki/www/ca.crt" "$work/pki/catalogue/tls.key" "$work/torn"
  no "Python: a torn pair" KEY_VALUES_MISMATCH "$python" -c "import sys; sys.path.append('$work'); import identity; identity.load('$work/torn')"
}

check_hypercorn() {
  local port
  port=$(free_port)
  {
    echo 'import asyncio, sys, hypercorn.asyncio, hypercorn.config; from identity import follow; from service_app import app; at = sys.argv[1]'
    block hypercorn.py
    echo 'c = Config(); c.bind = [f"127.0.0.1:{sys.argv[2]}"]; c.certfile, c.keyfile = f"{at}/tls.crt", f"{at}/tls.key"'
    echo 'asyncio.run(hypercorn.asyncio.serve(app, c))'
  } >"$work/corn.py"
  {
    echo 'async def app(scope, receive, send):'
    echo '    if scope["type"] != "http": return'
    sed -n '/^async def app/,/^$/{//d;p}' "$work/service.py"
  } >"$work/service_app.py"
  "$python" "$work/corn.py" "$work/pki/catalogue" "$port" >>"$work/python.log" 2>&1 &
  pids+=($!)
  until_ok "hypercorn: a certificate gets in" get "$port" localhost reports --fail
  no "hypercorn: none does not" "$turned_away" get "$port" localhost -
}

check_nginx() {
  until_ok "nginx: a certificate gets in, and nginx to the service behind it" get "$nginx_port" www.internal reports --fail
  said "… which answers" '^catalogue$'
  must "nginx: none" get "$nginx_port" www.internal -
  said "… does not" 'No required SSL certificate was sent'
  cat "$work/out" >>"$work/seen"
  must "nginx: a foreign one" get "$nginx_port" www.internal stranger
  said "… does not" 'The SSL certificate error'
  no "nginx: another service is turned away" 'error: 403' get "$nginx_port" www.internal query-module --fail
  must "nginx: the guide's rotation" run rotate-nginx
  until_ok "nginx: the new one is served" serves "$work/pki/www/tls.crt" "$nginx_port"
  must "… and inspect says so" artstore-pki inspect --ca-cert "$work/pki/www/ca.crt" "localhost:$nginx_port"
  no "nginx: -t sees a torn pair" 'key values mismatch' torn_nginx
}

torn_nginx() {
  sed "s|$work/pki/www/|$work/torn/|" "$work/nginx/site.conf" >"$work/nginx/torn.conf"
  sed "s|site.conf|torn.conf|" "$work/nginx/nginx.conf" >"$work/nginx/torn-main.conf"
  touch "$work/torn/lists.pem"
  "$nginx" -t -c "$work/nginx/torn-main.conf"
}

check_postgres() {
  must "PostgreSQL: a certificate gets in" sql reports
  said "… over TLS 1.3" '^t\|TLSv1.3\|/CN=reports$'
  no "PostgreSQL: none does not" 'requires a valid client certificate|no pg_hba.conf entry' sql reports 's|sslcert=.*tls.key|sslcert=none|'
  no "PostgreSQL: a foreign one does not" "unknown ca|$turned_away" sql stranger
  no "PostgreSQL: another service does not" 'certificate authentication failed for user' sql query-module
  no "PostgreSQL: a wrong name is noticed" 'does not match host name' sql reports 's|db.internal|www.internal|'
  block rotate-postgres >"$work/block.sh"
  must "PostgreSQL: the guide's rotation" as_db sh -e "$work/block.sh"
  until_ok "PostgreSQL: the new one is served" serves "$work/pki/db/tls.crt" "$db_port" -starttls postgres
  must "… and used" sql reports
}

# go_program: the guide's Go, and a way to call it.
go_program() {
  cat >"$work/guide.go" <<'END'
package main

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/rotation/files"
)

func main() {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})))
	id, err := openFiles(context.Background(), os.Args[2])
	check(err)
	if os.Args[1] == "serve" {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		check(err)
		check(os.WriteFile(os.Args[3], []byte(ln.Addr().String()), 0o600))
		check(serve(context.Background(), id, ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "go\n") })))
	}
	c, err := client(id)
	check(err)
	resp, err := c.Get(os.Args[3])
	check(err)
	_, _ = io.Copy(os.Stdout, resp.Body)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

END
  block go | cat -s | sed '$d' >>"$work/guide.go"
  printf '{"Replace": {"%s/cmd/guide/main.go": "%s/guide.go"}}' "$PWD" "$work" >"$work/overlay.json"
  must "Go: it builds" env CGO_ENABLED=0 go build -overlay "$work/overlay.json" -o "$work/bin/guide" ./cmd/guide
  must "… and is formatted" test -z "$(gofmt -l "$work/guide.go")"
}

start_go() {
  rm -f "$work/addr"
  guide serve "$1" "$work/addr" >>"$work/go.log" 2>&1 &
  server=$!
  pids+=("$server")
  wait_for_file "$work/addr"
  go_port=$(sed 's/.*://' "$work/addr")
}

check_go() {
  start_go "$work/pki/catalogue"
  must "Go: a certificate gets in" get "$go_port" catalogue.internal reports --fail
  must "Go: the client, too" guide get "$work/pki/reports" "https://localhost:$go_port/"
  no "Go: none does not" 'certificate required' get "$go_port" localhost -
  no "Go: a foreign one does not" 'unknown ca' get "$go_port" localhost stranger
  no "Go: another service does not" 'bad certificate' get "$go_port" localhost query-module
  no "Go: TLS 1.2 does not" 'protocol version' get "$go_port" localhost reports --tls-max 1.2
  no "Go: the client knows an unknown root" 'certificate signed by unknown authority' guide get "$work/pki/stranger" "https://localhost:$go_port/"
  no "Go: the client notices a wrong name" "doesn't contain any IP SANs" guide get "$work/pki/reports" "https://127.0.0.1:$go_port/"
  no "curl notices one" 'no alternative certificate subject name matches' get "$go_port" elsewhere.internal reports
  no "curl does not know the root" 'unable to get local issuer certificate' get "$go_port" localhost - --cacert "$work/pki/foreign/ca.crt"
  no "… of the authority" 'self-signed certificate in certificate chain' curl -sS --cacert "$work/pki/foreign/ca.crt" "$url/health"
  mixed_trust
  must "Go: renew" artstore-pki renew --ca-url "$url" "$work/pki/catalogue"
  until_ok "Go: the new one is served" serves "$work/pki/catalogue/tls.crt" "$go_port"
}

# mixed_trust: clients that know the server and are unknown or out of date to it.
mixed_trust() {
  mkdir "$work/mixed"
  cp "$work/pki/stranger/tls.crt" "$work/pki/stranger/tls.key" "$work/mixed"
  cat "$work/pki/foreign/ca.crt" "$work/pki/reports/ca.crt" >"$work/mixed/ca.crt"
  no "Go: a foreign client is told so" 'unknown certificate authority' guide get "$work/mixed" "https://localhost:$go_port/"
}

check_dates() {
  local dir=$work/pki/foreign fixture=$work/pki/foreign/fixtures
  start_go "$dir/query-module"
  no "Go: an expired one does not" 'certificate expired' get "$go_port" localhost foreign/fixtures/expired --cacert "$dir/ca.crt"
  no "openssl: expired" 'certificate has expired' openssl verify -CAfile "$dir/ca.crt" -untrusted "$fixture/expired/tls.crt" "$fixture/expired/tls.crt"
  no "openssl: not yet valid" 'not yet valid' openssl verify -CAfile "$dir/ca.crt" -untrusted "$fixture/not-yet-valid/tls.crt" "$fixture/not-yet-valid/tls.crt"
  no "openssl: a stale list" 'CRL has expired' openssl verify -crl_check -attime "$(($(date +%s) + 2 * 86400))" -CAfile "$work/pki/www/ca.crt" \
    -CRLfile "$work/pki/www/lists.pem" -untrusted "$work/pki/www/tls.crt" "$work/pki/www/tls.crt"
}

revocation() {
  must "revoke" run revoke
  no "a revoked one is not renewed" 'was revoked' artstore-pki renew --ca-url "$url" "$work/pki/reports"
  must "nginx: the guide's rotation" run rotate-nginx
  until_ok "nginx: the revoked one is refused" nginx_refuses
  must "fetch the lists" fetch-lists "$work/pki/catalogue"
  until_ok "Python: the revoked one is refused" python_refuses
  must "Go: renew" artstore-pki renew --ca-url "$url" "$work/pki/catalogue"
  start_go "$work/pki/catalogue"
  no "Go: the revoked one is refused" 'bad certificate' get "$go_port" localhost reports
  block rotate-postgres >"$work/block.sh"
  must "PostgreSQL: the guide's rotation" as_db sh -e "$work/block.sh"
  until_ok "PostgreSQL: the revoked one is refused" postgres_refuses
  must "a new enrolment" artstore-pki issue --ca-url "$url" --token-file <(artstore-pki token reports --dir "$work/pki/ca") --out "$work/pki/again"
  must "… gets in at Go" get "$go_port" localhost again --fail
  must "… at PostgreSQL" sql again
  must "… at nginx, and Python behind it" get "$nginx_port" www.internal again --fail
  cp "$work/pki/www/lists.pem" "$work/both.pem"
  # The trap of nginx and PostgreSQL: the root's list is missing.
  sed '1,/END X509 CRL/d' "$work/both.pem" >"$work/pki/www/lists.pem"
  nginx -s reload
  until_ok "nginx: without the root's list nobody gets in" nginx_wants_list
}

nginx_refuses() {
  get "$nginx_port" www.internal reports | grep -q 'The SSL certificate error' && grep -q 'certificate revoked' "$work/nginx/error.log"
}
nginx_wants_list() {
  get "$nginx_port" www.internal again | grep -q 'The SSL certificate error' && grep -q 'unable to get certificate CRL' "$work/nginx/error.log"
}
python_refuses() { ! get "$python_port" localhost reports; }
postgres_refuses() {
  ! sql reports >"$work/psql" 2>&1 && cat "$work/psql" >>"$work/seen" && grep -q 'certificate revoked' "$work/psql"
}

# symptoms: what the guide's table quotes has been said by somebody.
symptoms() {
  cat "$work"/*.log "$work/nginx/error.log" >>"$work/seen"
  # shellcheck disable=SC2016 # backticks of Markdown
  sed -n '/^## Symptoms/,$p' "$guide" | grep '^| [^y-]' | cut -d '|' -f 2 | grep -o '`[^`]*`' | tr -d '`' | sort -u >"$work/phrases"
  must "Go's log says why" grep -q 'peer is not allowed' "$work/go.log"
  must "… or that it was revoked" grep -q 'certificate is revoked' "$work/go.log"
  local phrase
  while read -r phrase; do
    case $phrase in *.conf | *.crt | *.pem | cert | key | inspect* | artstore-pki* | openssl* | fetch-lists) continue ;; esac
    must "seen: $phrase" grep -qF -- "$phrase" "$work/seen"
  done <"$work/phrases"
}

start_authority
certificates
start_python
start_nginx
start_postgres
check_python
check_hypercorn
check_nginx
check_postgres
go_program
check_go
check_dates
revocation
symptoms
whole
