# shellcheck shell=bash
# What the scripts that judge the program share; sourced, never run. A script
# gets $work, a directory that goes with it, and $server, the id of the process
# that answers, which stop_server ends.
work=$(mktemp -d)
server=

finish() {
  local status=$?
  stop_server
  if [ "$status" -ne 0 ]; then
    touch "$work/out" "$work/serve.log"
    echo "--- last answer:"
    tail -n 20 "$work/out"
    echo "--- server:"
    tail -n 40 "$work/serve.log"
  fi >&2
  rm -rf "$work"
}
trap finish EXIT

stop_server() {
  [ -n "$server" ] || return 0
  kill "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  server=
}

# build_if_absent: $pki is the program under test, unless it was named.
build_if_absent() {
  [ -z "$pki" ] || return 0
  pki=$work/artstore-pki
  CGO_ENABLED=0 go build -o "$pki" ./cmd/artstore-pki
}

# must TEXT COMMAND…: it has to succeed; its output is in $work/out.
must() {
  local text=$1
  shift
  if ! "$@" >"$work/out" 2>&1 </dev/null; then
    echo "FAIL $text" >&2
    exit 1
  fi
  echo "ok   $text"
}

# refused TEXT PATTERN COMMAND…: it has to fail, and to say why: a command that
# fails for another reason (a typo in this script) proves nothing.
refused() {
  local text=$1 pattern=$2
  shift 2
  if "$@" >"$work/out" 2>&1 </dev/null; then
    echo "FAIL $text: it was accepted" >&2
    exit 1
  fi
  grep -Eiq "$pattern" "$work/out" || { echo "FAIL $text: refused, but not with /$pattern/" >&2; exit 1; }
  echo "ok   $text"
}

# said TEXT PATTERN: the answer before holds it.
said() {
  grep -Eiq "$2" "$work/out" || { echo "FAIL $1: no /$2/ in the answer" >&2; exit 1; }
  echo "ok   $1"
}

# wait_for_file FILE: until it has content; a server that died ends the wait.
wait_for_file() {
  local deadline=$((SECONDS + 60))
  until [ -s "$1" ]; do
    kill -0 "$server" 2>/dev/null || { echo "FAIL the server ended before it was ready" >&2; exit 1; }
    [ "$SECONDS" -lt "$deadline" ] || { echo "FAIL the server was not ready in 60 s" >&2; exit 1; }
    sleep 0.1
  done
}

# until_ok TEXT COMMAND…: it has to succeed within 20 s.
until_ok() {
  local text=$1 deadline=$((SECONDS + 20))
  shift
  until "$@" >"$work/out" 2>&1 </dev/null; do
    [ "$SECONDS" -lt "$deadline" ] || { echo "FAIL $text" >&2; exit 1; }
    sleep 0.1
  done
  echo "ok   $text"
}

# guide_block NAME prints the blocks below <!-- check: NAME --> in the file $guide.
guide_block() {
  echo "$1" >>"$work/used"
  awk -v want="<!-- check: $1 -->" '
    $0 == want { armed = 1; next }
    /^```/ { if (inside) { inside = 0; print "" } else if (armed) { inside = 1; found = 1 } armed = 0; next }
    inside { print }
    END { exit !found }' "${guide:?}"
}

# whole: each block of the guide has a name and was used.
whole() {
  must "every block says whether it is checked" awk '
    /^<!-- (check|unchecked): .* -->$/ { marked = NR }
    /^```/ { if (!inside && marked != NR - 1) { print FILENAME ": " NR; bad = 1 } inside = !inside }
    END { exit bad }' "${guide:?}"
  sed -n 's/^<!-- check: \(.*\) -->$/\1/p' "$guide" | sort -u >"$work/named"
  must "every checked block was used" test -z "$(comm -23 "$work/named" <(sort -u "$work/used"))"
}
