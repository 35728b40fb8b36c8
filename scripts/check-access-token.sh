#!/usr/bin/env bash
# docs/access-token.md on real programs: its blocks are taken from it as they
# stand there. A Python program with httpx and curl upload with the token of
# `access-token serve`, which is bound to a certificate that is renewed
# meanwhile, to a Storage Element that refuses any other combination.
#
#   scripts/check-access-token.sh [ARTSTORE_PKI_BINARY]
#
# Only paths and addresses are replaced. Ports are free ones, state is a
# temporary directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pki=${1:-${ARTSTORE_PKI:-}}
# shellcheck source=scripts/checks.sh
. scripts/checks.sh
readonly guide=docs/access-token.md
# Debian's own, which has Debian's packages.
readonly python=/usr/bin/python3
readonly renewals=6
ca='' admin='' storage='' pids=()

# stop_server of checks.sh knows one server; here are several.
stop_server() {
  local pid
  for pid in "${pids[@]}"; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  pids=()
}

block() {
  guide_block "$1" | sed -e "s|/etc/ingester|$work/etc|g" -e "s|/run/ingester|$work/run|g" -e "s|/var/lib/ingester|$work/lib|g" \
    -e "s|https://admin.internal:8000|$admin|g" -e "s|https://storage.internal:8010|$storage|g"
}

# start LOG READY COMMAND…: a server, until its ready file is there.
start() {
  local log=$1 ready=$2
  shift 2
  rm -f "$ready"
  "$@" --ready-file "$ready" >>"$work/$log.log" 2>&1 &
  server=$!
  pids+=("$server")
  wait_for_file "$ready"
  echo "ok   $log"
}

services() {
  build_if_absent
  mkdir -p "$work/bin" "$work/etc" "$work/run" "$work/lib"
  cp "$pki" "$work/bin/artstore-pki"
  export PATH=$work/bin:$PATH
  must "bootstrap" artstore-pki dev bootstrap --dir "$work/ca" --dns localhost --dns 127.0.0.1 \
    --token admin-module="$work/admin.token" --token storage-element="$work/storage.token" --token ingester="$work/ingester.token"
  start serve "$work/ca.url" artstore-pki serve --dir "$work/ca" --listen 127.0.0.1:0
  ca=$(cat "$work/ca.url")
  # Tokens of 30 s: some of them expire while the program runs, too.
  start admin "$work/admin.url" artstore-pki dev admin --dir "$work/admin" --listen 127.0.0.1:0 --allow ingester --allow storage-element \
    --bound-tokens --token-lifetime 30s --account ingester --account-id-file "$work/etc/client-id" --account-secret-file "$work/etc/client-secret" \
    --ca-url "$ca" --token-file "$work/admin.token" --state "$work/admin-id"
  admin=$(cat "$work/admin.url")
  start storage "$work/storage.url" artstore-pki dev storage --dir "$work/storage" --listen 127.0.0.1:0 --allow ingester --require-bound \
    --jwks-url "$admin/.well-known/jwks.json" --ca-url "$ca" --token-file "$work/storage.token" --state "$work/storage-id"
  storage=$(cat "$work/storage.url")
  must "issue" artstore-pki issue --ca-url "$ca" --token-file "$work/ingester.token" --out "$work/lib/identity"
}

once() {
  block ingester.env >"$work/etc/ingester.env"
  block once >"$work/block.sh"
  must "access-token" sh -e "$work/block.sh"
  said "… prints a token and nothing else" '^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$'
  must "… on one line" test "$(wc -l <"$work/out")" -eq 1
}

start_daemon() {
  block serve | sed -e '/^$/d' -e 's/^/exec /' -e 's/$/ "$@"/' >"$work/serve.sh"
  start access-token "$work/socket" sh -e "$work/serve.sh" --log-level debug
}

with_curl() {
  block curl >"$work/block.sh"
  must "curl uploads" run_in_work sh -e "$work/block.sh"
  said "… and has an answer" '"file_id"'
}

run_in_work() { (cd "$work" && "$@"); }

with_python() {
  block artstore_upload.py >"$work/artstore_upload.py"
  block use.py >"$work/use.py"
  must "Python uploads" run_in_work "$python" use.py
  said "… and prints the id" '^[0-9a-f-]{36}$'
  block ciphers.py >"$work/ciphers.py"
  must "Python's set_ciphers" "$python" "$work/ciphers.py"
  said "… refuses suites of TLS 1.3" 'No cipher can be selected'
  said "… all of which are on" "'TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256'"
}

# rotation: the same program over several certificates. A file named stop ends
# it, and a 401 does, too: the token has to fit at the first attempt.
rotation() {
  sed '$d' "$work/use.py" | sed '/^$/d' >"$work/loop.py" # without its one upload
  cat >>"$work/loop.py" <<'END'
import os
used, count = set(), 0
def no_401(_):
    raise SystemExit("401")
storage.tokens.reject = no_401
while not os.path.exists("stop"):
    storage.upload("report.pdf")
    count += 1
    used.add(list(storage.clients)[-1])
    open("count", "w").write(f"{count} {len(used)}\n")
print(f"{count} uploads, {len(used)} certificates")
END
  (cd "$work" && exec "$python" loop.py) >"$work/loop.log" 2>&1 &
  local loop=$! n
  for n in $(seq "$renewals"); do
    until_ok "uploads with certificate $n" uses "$n"
    must "renew" artstore-pki renew --ca-url "$ca" "$work/lib/identity"
  done
  until_ok "uploads with the last one" uses $((renewals + 1))
  touch "$work/stop"
  wait "$loop" || { cat "$work/loop.log" >&2; echo "FAIL an upload failed while the certificate changed" >&2; exit 1; }
  cp "$work/loop.log" "$work/out"
  said "no upload failed, and none met a 401" "^[0-9]+ uploads, $((renewals + 1)) certificates\$"
}

uses() { [ "$(cut -d ' ' -f 2 "$work/count")" = "$1" ]; }

# refusals: what the daemon does for a program whose token is refused.
refusals() {
  local token=$work/token.json
  ask() { curl -sS --unix-socket "$work/run/token.sock" "$@"; }
  ask -o "$token" http://localhost/token
  local value
  value=$(sed -n 's/.*"access_token":"\([^"]*\)".*/\1/p' "$token")
  printf 'token=%s' "$value" >"$work/form"
  must "a rejection" ask -w '%{http_code}' --data @"$work/form" http://localhost/token/reject
  said "… is taken" '^204$'
  must "… and replaces the token" differs "$value"
}

differs() { ! ask http://localhost/token | grep -qF "$1"; }

nothing_leaks() {
  must "no token is in a log" test "$(cat "$work"/*.log | grep -c 'eyJ')" -eq 0
  stop_server
  must "the socket is gone" test ! -e "$work/run/token.sock"
}

echo content >"$work/report.pdf"
services
once
start_daemon
with_curl
with_python
rotation
refusals
nothing_leaks
whole
