#!/usr/bin/env bash
# The step CLI, unchanged, against a real `artstore-pki serve`: one line per
# command that must work and one per request that must be refused.
#
#   scripts/interop-step.sh [ARTSTORE_PKI_BINARY]
#
# ARTSTORE_PKI and STEP name the binaries (default: build the first, find the
# second in PATH); STEPSDK that of e2e/stepsdk, without which smallstep's library is
# left out. Ports are free ones, state is a temporary directory.
#
# RENEWALS is for how many seconds certificates that live for 70 s are renewed by
# `step ca renew --daemon` and by the library, beside everything else: 110 if absent,
# which is two renewals. With 600 or more there are certificates of 3 minutes too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step=${STEP:-step}
pki=${1:-${ARTSTORE_PKI:-}}
# shellcheck source=scripts/checks.sh
. scripts/checks.sh

differ() { ! cmp -s "$1" "$2"; }
same() { cmp -s "$1" "$2"; }
serial() { openssl x509 -in "$1" -noout -serial | cut -d= -f2; }
spki() { openssl x509 -in "$1" -noout -pubkey; }

# decimal FILE: step names certificates by their serial in decimal.
decimal() {
  "$step" certificate inspect "$1" --format json |
    sed -n 's/.*"serial_number": *"\([0-9]*\)".*/\1/p' | head -n 1
}

token() { "$pki" token --dir "$work/ca" "$@"; }

start_ca() {
  build_if_absent
  must "artstore-pki init" "$pki" init --dir "$work/ca" --name Interop \
    --dns localhost --dns 127.0.0.1 --address 127.0.0.1:0
  sed -i 's|^provisioners:|&\n  - {type: X5C, name: holders}|' "$work/ca/pki.yaml"
  sed -i 's|^\( *\)max: 24h.*|\1max: 168h|' "$work/ca/pki.yaml"
  "$pki" serve --dir "$work/ca" --listen 127.0.0.1:0 --ready-file "$work/url" >"$work/serve.log" 2>&1 &
  server=$!
  wait_for_file "$work/url"
  url=$(tr -d '\n' <"$work/url")
  echo "ok   artstore-pki serve"
  fingerprint=$("$pki" fingerprint --dir "$work/ca")
}

# renewals starts an authority of short certificates and the clients that renew them;
# renewed waits for these and looks at what they did.
renewals() {
  local name
  short=$work/short
  mkdir "$short"
  must "artstore-pki init, lives of 70 s" "$pki" init --dir "$short/ca" --plain-keys --lifetime 70s --dns localhost --dns 127.0.0.1 --address 127.0.0.1:0
  sed -i 's|^  "admin-module":|&\n    lifetime: {default: 3m}|' "$short/ca/pki.yaml"
  "$pki" serve --dir "$short/ca" --listen 127.0.0.1:0 --ready-file "$short/url" >"$short/serve.log" 2>&1 &
  others+=($!)
  wait_for_file "$short/url"
  # Tokens name the port: step, with nothing but a token, dials what it says.
  sed -i "s|^name:|public_port: $(sed 's|.*:||' "$short/url")\n&|" "$short/ca/pki.yaml"
  mkdir "$short/empty"
  for name in query-module admin-module; do
    must "step ca certificate with an empty STEPPATH, $name" env STEPPATH="$short/empty" \
      "$step" ca certificate "$name" "$short/$name.crt" "$short/$name.key" --token "$("$pki" token --dir "$short/ca" "$name")"
    STEPPATH=$short/empty "$step" ca renew --daemon --ca-url "$(tr -d '\n' <"$short/url")" --root "$short/ca/certs/root_ca.crt" \
      "$short/$name.crt" "$short/$name.key" >"$short/$name.log" 2>&1 &
    others+=($!)
  done
  [ -n "${STEPSDK:-}" ] || return 0
  for name in storage-element ingester; do "$pki" token --dir "$short/ca" "$name" >"$short/$name.token"; done
  "$STEPSDK" "$short/storage-element.token" "$short/ingester.token" "${RENEWALS}s" >"$short/sdk.log" 2>&1 &
  sdk=$!
}

# chain SERVICE LEAST: its certificates in the record are renewals, each of the one
# before, LEAST of them at least.
chain() {
  "$pki" list --dir "$short/ca" --service "$1" -o json >"$short/list"
  local all renewed lineages
  all=$(grep -c '"serial":' "$short/list")
  renewed=$(grep -c '"kind": "renewed"' "$short/list") || true
  lineages=$(grep '"lineage":' "$short/list" | sort -u | wc -l)
  echo "$1: $all certificates, $renewed renewed, $lineages lineages"
  [ "$lineages" -eq 1 ] && [ "$renewed" -eq $((all - 1)) ] && [ "$renewed" -ge "$2" ]
}

without_errors() { cat "$1" && ! grep -qiE 'error|fail|expired' "$1"; }

renewed() {
  local left=$((begun + RENEWALS - SECONDS)) name
  [ "$left" -le 0 ] || sleep "$left"
  if [ -n "${STEPSDK:-}" ]; then
    must "smallstep's library, a server and a client for $RENEWALS s" wait "$sdk"
    cat "$short/sdk.log"
    for name in storage-element ingester; do
      must "its renewals are a chain in the record" chain "$name" $((RENEWALS / 70))
    done
  fi
  for name in query-module admin-module; do
    must "step ca renew --daemon, $name: no error" without_errors "$short/$name.log"
    must "its certificate is good" openssl x509 -in "$short/$name.crt" -noout -checkend 0
  done
  must "its renewals are a chain in the record" chain query-module $((RENEWALS / 70))
  cat "$work/out"
  must "its renewals are a chain in the record, lives of 3 minutes" chain admin-module $((RENEWALS / 180))
  cat "$work/out"
  for name in "${others[@]}"; do kill "$name"; done
  wait "${others[@]}" || true
  others=()
}

RENEWALS=${RENEWALS:-110}
others=()
end_others() {
  [ "${#others[@]}" -eq 0 ] || kill "${others[@]}" 2>/dev/null || true
}
trap 'status=$?; end_others; set +e; (exit "$status"); finish' EXIT

# Who is revoked hears it in the answer, or, once the listener has the list, in the
# alert that ends the handshake (RFC 8446 §6.2: bad_certificate).
gone='was revoked|bad certificate'

# patiently COMMAND…: the listener has the list a tenth of a second after the answer and
# cuts the connections of who is on it. A request that was under way then ends without
# an answer, and is sent again.
patiently() {
  "$@" >"$work/once" 2>&1 && { cat "$work/once"; return; }
  if grep -Eq 'EOF$|connection reset by peer' "$work/once"; then
    "$@"
    return
  fi
  cat "$work/once"
  return 1
}

# Nothing of the caller's own step configuration takes part.
export STEPPATH=$work/step
unset "${!STEP_@}" 2>/dev/null || true

trust() {
  refused "step ca bootstrap refuses a wrong fingerprint" 'no root with this fingerprint' \
    "$step" ca bootstrap --ca-url "$url" --fingerprint "$(printf '0%.0s' {1..64})"
  must "step ca bootstrap" "$step" ca bootstrap --ca-url "$url" --fingerprint "$fingerprint" --force
  must "step ca health" "$step" ca health
  must "step ca root" "$step" ca root "$work/root.crt"
  must "step ca roots" "$step" ca roots "$work/roots.crt"
  must "step ca roots holds the root" same "$work/root.crt" "$work/roots.crt"
  must "step ca federation" "$step" ca federation "$work/federation.crt"
  must "step ca provisioner list" "$step" ca provisioner list
  said "the provisioner is listed" '"type": *"JWK"'
}

# verified FILE: by a program that shares no code with either side.
verified() {
  openssl verify -CAfile "$work/roots.crt" -untrusted "$1" -purpose sslserver "$1" &&
    openssl verify -CAfile "$work/roots.crt" -untrusted "$1" -purpose sslclient "$1"
}

issue() {
  local once
  once=$(token ingester)
  must "step ca certificate" "$step" ca certificate ingester "$work/tls.crt" "$work/tls.key" --token "$once"
  must "openssl verify, as server and as client" verified "$work/tls.crt"
  must "step certificate verify" "$step" certificate verify "$work/tls.crt" --roots "$work/roots.crt"
  refused "a used token is refused" 'token was already used' \
    "$step" ca certificate ingester "$work/again.crt" "$work/again.key" --token "$once"
  refused "a token for a foreign name is refused" 'is not a name of service' token ingester evil.example.com
}

# lives FILE: seconds from the begin to the end of a certificate.
lives() {
  local begin end
  begin=$(openssl x509 -in "$1" -noout -startdate | cut -d= -f2)
  end=$(openssl x509 -in "$1" -noout -enddate | cut -d= -f2)
  echo $(($(date -d "$end" +%s) - $(date -d "$begin" +%s)))
}

# dated FILE ARGUMENT...: a certificate with the dates that the arguments ask for.
dated() {
  local file=$1
  shift
  "$step" ca certificate ingester "$file" "$work/dated.key" --force --token "$(token ingester)" "$@"
}

dates() {
  local end
  must "step ca certificate --not-after 72h" dated "$work/dated.crt" --not-after 72h
  must "it lives 72 h, and a minute of back-dating" test "$(lives "$work/dated.crt")" -eq $((72 * 3600 + 60))
  must "step ca certificate --not-before -10m --not-after 1h" dated "$work/dated.crt" --not-before -10m --not-after 1h
  must "it lives 1 h from its begin" test "$(lives "$work/dated.crt")" -eq 3600
  end=$(date -u -d '+2 days' +%FT%TZ)
  must "step ca certificate --not-after TIME" dated "$work/dated.crt" --not-after "$end"
  must "it ends then" test "$(date -u -d "$(openssl x509 -in "$work/dated.crt" -noout -enddate | cut -d= -f2)" +%FT%TZ)" = "$end"
  refused "more than the most is refused" 'lifetime.max' dated "$work/no.crt" --not-after 200h
  refused "less than the least is refused" 'lifetime.min' dated "$work/no.crt" --not-after 10s
  refused "a begin in the future is refused" 'begins when it is issued' dated "$work/no.crt" --not-before 24h
}

renew() {
  cp "$work/tls.crt" "$work/first.crt"
  must "step ca renew" "$step" ca renew --force "$work/tls.crt" "$work/tls.key"
  must "renewed: another serial" differ <(serial "$work/first.crt") <(serial "$work/tls.crt")
  must "renewed: the same key" same <(spki "$work/first.crt") <(spki "$work/tls.crt")
  must "openssl verify" verified "$work/tls.crt"

  cp "$work/tls.crt" "$work/second.crt"
  must "step ca rekey" "$step" ca rekey --force "$work/tls.crt" "$work/tls.key"
  must "rekeyed: another key" differ <(spki "$work/second.crt") <(spki "$work/tls.crt")
  must "openssl verify" verified "$work/tls.crt"
}

revoke() {
  must "step ca revoke, by mTLS" "$step" ca revoke --cert "$work/tls.crt" --key "$work/tls.key" --reasonCode superseded
  refused "renewing a revoked certificate is refused" "$gone" patiently \
    "$step" ca renew --force "$work/tls.crt" "$work/tls.key"
  refused "rekeying a revoked certificate is refused" "$gone" patiently \
    "$step" ca rekey --force "$work/tls.crt" "$work/tls.key"

  must "step ca certificate, a second one" "$step" ca certificate query-module "$work/b.crt" "$work/b.key" \
    --token "$(token query-module)"
  local number
  number=$(decimal "$work/b.crt")
  must "step ca revoke, by token" "$step" ca revoke "$number" --token "$(token --revoke "$number")"
  refused "its renewal is refused" "$gone" patiently \
    "$step" ca renew --force "$work/b.crt" "$work/b.key"
  refused "revoking an unknown serial is refused" 'not in the record' \
    "$step" ca revoke 12345 --token "$(token --revoke 12345)"
}

# A certificate vouches for others with names of its own.
x5c() {
  local holder=(--x5c-cert "$work/h.crt" --x5c-key "$work/h.key" --provisioner holders) once number
  must "step ca certificate, a holder" "$step" ca certificate ingester "$work/h.crt" "$work/h.key" --token "$(token ingester)"
  must "step ca certificate --x5c-cert" "$step" ca certificate ingester "$work/x.crt" "$work/x.key" "${holder[@]}" --san ingester
  must "openssl verify, as server and as client" verified "$work/x.crt"
  once=$("$step" ca token ingester "${holder[@]}" --san ingester-module 2>/dev/null)
  must "step ca token --x5c-cert" test -n "$once"
  must "its token works" "$step" ca certificate ingester "$work/x2.crt" "$work/x2.key" --token "$once"
  refused "and works once" 'token was already used' "$step" ca certificate ingester "$work/x3.crt" "$work/x3.key" --token "$once"
  refused "a name that the holder does not have is refused" 'names of its own certificate' \
    "$step" ca certificate query-module "$work/x3.crt" "$work/x3.key" "${holder[@]}" --san query-module
  number=$(decimal "$work/x.crt")
  refused "revoking another's is refused" 'revokes only itself' \
    "$step" ca revoke "$number" --token "$("$step" ca token "$number" --revoke "${holder[@]}" 2>/dev/null)"
  number=$(decimal "$work/h.crt")
  must "step ca revoke, itself" "$step" ca revoke "$number" --token "$("$step" ca token "$number" --revoke "${holder[@]}" 2>/dev/null)"
  refused "a revoked holder vouches for nothing" "$gone" patiently \
    "$step" ca certificate ingester "$work/x3.crt" "$work/x3.key" "${holder[@]}" --san ingester
  refused "what it vouched for does not renew" "$gone" patiently "$step" ca renew --force "$work/x.crt" "$work/x.key"
}

revocation_list() {
  must "the CRL is served" curl -sSf --cacert "$work/roots.crt" -o "$work/crl.der" "$url/1.0/crl"
  must "step crl inspect" "$step" crl inspect "$work/crl.der" --insecure
  must "openssl crl" openssl crl -inform DER -in "$work/crl.der" -noout -text
  said "the CRL lists the revoked serial" "$(serial "$work/b.crt")"
}

stop_ca() {
  kill -TERM "$server"
  local status=0
  wait "$server" || status=$?
  server=
  must "serve ends cleanly on SIGTERM" test "$status" -eq 0
}

start_ca
begun=$SECONDS
renewals
trust
issue
dates
renew
revoke
x5c
revocation_list
renewed
stop_ca
