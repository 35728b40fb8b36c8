#!/usr/bin/env bash
# scripts/gen-dev-certs.sh as a user has it, judged by programs that share no
# code with it: openssl verifies each certificate in both roles, curl connects to
# each name of each, and find looks at what is on disk.
#
#   scripts/check-dev-certs.sh [ARTSTORE_PKI_BINARY]
#
# The servers are `artstore-pki dev admin` with the certificate under test. Ports
# are free ones, state is a temporary directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pki=${1:-${ARTSTORE_PKI:-}}
# shellcheck source=scripts/checks.sh
. scripts/checks.sh
certs=$work/new/certs # its parent is not there either: the script of old stopped at that

nothing() {
  local lines
  lines=$("$@")
  echo "$lines"
  [ -z "$lines" ]
}

generate() { ARTSTORE_PKI=$pki scripts/gen-dev-certs.sh "$certs" "$@"; }

# photograph: every path with what a change would show in, the times included.
photograph() {
  find "$certs" -printf '%P %y %m %s %T@ %C@ %l\n' | sort
  find "$certs" -type f -exec sha256sum {} + | sort -k 2
}

# verified FILE PURPOSE, with openssl's own reading of purposes.
verified() { openssl verify -CAfile "$certs/ca.crt" -untrusted "$1" -purpose "$2" "$1"; }

names() {
  openssl x509 -in "$1" -noout -ext subjectAltName | tail -n +2 | tr ',' '\n' |
    sed 's/^ *//; s/^DNS://; s/^IP Address:0:0:0:0:0:0:0:1$/[::1]/; s/^IP Address://'
}

start_server() {
  rm -f "$work/url"
  "$pki" dev admin --dir "$work/admin" --listen 127.0.0.1:0 --ready-file "$work/url" --allow localhost \
    --cert "$1/tls.crt" --key "$1/tls.key" --ca-cert "$1/ca.crt" >"$work/serve.log" 2>&1 &
  server=$!
  wait_for_file "$work/url"
  port=$(sed 's/.*://' "$work/url")
}

# get NAME [OPTION…]: over TLS 1.3 and by nothing but DIR/ca.crt. The name is
# resolved here, so that no resolver has a say, nor whether there is IPv6.
get() {
  local name=$1
  shift
  curl -sS --fail --noproxy '*' --tlsv1.3 --max-time 30 --connect-to "$name:$port:127.0.0.1:$port" --cacert "$certs/ca.crt" "$@" \
    "https://$name:$port/health/live"
}

as() { echo --cert "$certs/$1/tls.crt" --key "$certs/$1/tls.key"; }

# spent sets cpu to the seconds of processor time that ended children took: it is
# what a busy machine does not change. times must run in this shell, not in $(…).
spent() {
  times >"$work/times"
  cpu=$(awk 'NR == 2 { split($1, u, /[ms]/); split($2, s, /[ms]/); print int(60 * (u[1] + s[1]) + u[2] + s[2]) }' "$work/times")
}

first_run() {
  build_if_absent
  must "a dry run" generate --dry-run
  must "… makes nothing" test ! -e "$work/new"
  local cpu before
  spent
  before=$cpu
  must "a first run" generate --expired --not-yet-valid
  spent
  [ "$((cpu - before))" -le 10 ] || { echo "FAIL it took $((cpu - before)) s of processor time, want 10 at most" >&2; exit 1; }
  echo "ok   in $((cpu - before)) s of processor time"
}

second_run() {
  photograph >"$work/before"
  must "a second run" generate --expired --not-yet-valid
  said "… has nothing to do" 'nothing to do'
  must "a dry run of replacing everything" generate --dry-run --renew
  photograph >"$work/after"
  must "neither changed anything: content, modes, times, links" diff "$work/before" "$work/after"
}

modes() {
  must "directories are their owner's alone" nothing find "$certs" -type d ! -perm 700
  must "keys, passwords and tokens are, too" nothing find "$certs" -type f '(' -name '*.key' -o -path '*/secrets/*' ')' ! -perm 600
  must "every key has a file of its own" nothing uniq -d <(sha256sum "$certs"/*/tls.key | cut -d ' ' -f 1 | sort)
}

# service DIR: both purposes, and a connection to each of its names.
service() {
  local name title=${1#"$certs"/}
  must "openssl verify $title as server" verified "$1/tls.crt" sslserver
  must "openssl verify $title as client" verified "$1/tls.crt" sslclient
  start_server "$1"
  names "$1/tls.crt" >"$work/names"
  while read -r name; do
    # The server's own certificate is the client's: both usages in one handshake.
    # shellcheck disable=SC2046 # two options, four words
    must "curl as $title to https://$name" get "$name" $(as "$title")
  done <"$work/names"
  stop_server
}

# names_of_old: what code and what containers call them; the script before this one
# had half of them, as one name with line breaks in it.
names_of_old() {
  local name
  for name in admin-module storage-element storage-element-0{1,2,3} ingester-module query-module; do
    names "$certs/$name/tls.crt" | sort >"$work/names"
    must "$name has its names" diff "$work/names" <(printf '%s\n' "$name" "artstore_${name//-/_}" localhost 127.0.0.1 '[::1]' | sort)
  done
}

# In TLS 1.3 a server judges after the client is done; its alert can get lost in
# the reset that follows. So a refusal may look like a lost connection, and what
# proves it is the good certificate that gets through before.
readonly turned_away='alert|reset|closed|broken pipe|not connected|failure in'

refusals() {
  start_server "$certs/query-module"
  # shellcheck disable=SC2046 # here and below: two options, four words
  must "curl with a certificate gets in" get query-module $(as ingester-module)
  refused "curl without one is refused" "$turned_away" get query-module
  # shellcheck disable=SC2046
  refused "an expired one is refused" "$turned_away" get query-module $(as fixtures/expired)
  # shellcheck disable=SC2046
  refused "one that is not valid yet is refused" "$turned_away" get query-module $(as fixtures/not-yet-valid)
  # shellcheck disable=SC2046
  refused "curl refuses a name that is not in the certificate" 'no alternative certificate subject name|does not match' \
    get admin-module $(as admin-module)
  stop_server
  refused "openssl says expired" 'certificate has expired' verified "$certs/fixtures/expired/tls.crt" sslserver
  refused "openssl says not yet valid" 'not yet valid' verified "$certs/fixtures/not-yet-valid/tls.crt" sslserver
}

# killed: whatever a run was doing when it was shot, the next one completes. A
# fast machine may be done before some of these shots; the first always hits.
killed() {
  local after status good=$certs shots=0
  certs=$work/killed
  for after in 0.05 0.2 0.3 0.4 0.5 0.6 0.8 1 1.2; do
    status=0
    # A shell in between, because whoever started what was killed talks about it.
    ARTSTORE_PKI=$pki bash -c '"$@"; exit $?' -- timeout -s KILL "$after" \
      scripts/gen-dev-certs.sh "$certs" --renew --expired >"$work/out" 2>&1 || status=$?
    [ "$status" -eq 0 ] || [ "$status" -eq 137 ] || { echo "FAIL a run after a killed one" >&2; exit 1; }
    [ "$status" -eq 0 ] || shots=$((shots + 1))
  done
  must "runs were killed on the way: $shots" test "$shots" -gt 0
  must "a run after that" generate --expired
  must "… completes all" test "$(echo "$certs"/*/tls.key "$certs"/fixtures/expired/tls.key | wc -w)" -eq 9
  must "… leaves nothing unfinished" nothing find "$certs" -name '.ca-making*' -o -name 'pending-*'
  must "a run after that" generate
  said "… has nothing to do" 'nothing to do'
  certs=$good
}

first_run
second_run
killed
modes
names_of_old
for dir in "$certs"/*/; do
  case $dir in */ca/ | */fixtures/) ;; *) service "${dir%/}" ;; esac
done
refusals
