#!/usr/bin/env bash
# ACME clients, unchanged, against a real `artstore-pki serve`: certbot, lego, Caddy
# and step obtain, renew and revoke by http-01, dns-01 and tls-alpn-01, and print why
# they were refused. Then a root is rotated under them, and at the end accounts need a key of
# the operator.
#
#   scripts/interop-acme.sh [ARTSTORE_PKI_BINARY]
#
# ARTSTORE_PKI, DNSD, LEGO5, CERTBOT5 and STEP name the binaries (default: build the first
# three, unpack the fourth, find the last in PATH); certbot, lego and Caddy are those of the
# distribution, LEGO5 is the library of lego v5 in e2e/lego, and CERTBOT5 the certbot of
# scripts/debian-certbot.sh, which obeys renewal information. Ports are
# free ones, names are those of a DNS server of the script's own, and no program
# reads configuration from outside a temporary directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step=${STEP:-step}
dnsd=${DNSD:-}
lego5=${LEGO5:-}
certbot5=${CERTBOT5:-}
pki=${1:-${ARTSTORE_PKI:-}}
# shellcheck source=scripts/checks.sh
. scripts/checks.sh

dns=
caddy=
stop_others() {
  [ -z "$dns" ] || kill "$dns" 2>/dev/null || true
  [ -z "$caddy" ] || kill "$caddy" 2>/dev/null || true
}
trap 'finish; stop_others' EXIT

export HOME=$work STEPPATH=$work/step
unset "${!STEP_@}" "${!LEGO_@}" 2>/dev/null || true

free_port() { /usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
differ() { ! cmp -s "$1" "$2"; }
serial() { openssl x509 -in "$1" -noout -serial | cut -d= -f2; }
verified() { openssl verify -CAfile "$work/roots.crt" -untrusted "$1" -purpose sslserver "$1"; }

# revoked FILE: as the list that everybody can fetch says.
revoked() {
  curl -sSf --cacert "$work/roots.crt" -o "$work/crl.der" "$url/1.0/crl"
  openssl crl -inform DER -in "$work/crl.der" -noout -text | grep -q "$(serial "$1")"
}

start_dns() {
  mkdir "$work/txt"
  if [ -z "$dnsd" ]; then
    dnsd=$work/dnsd
    CGO_ENABLED=0 go build -o "$dnsd" ./scripts/dnsd
  fi
  "$dnsd" "$work/txt" "$work/resolver" &
  dns=$!
  server=$dns wait_for_file "$work/resolver"
  resolver=$(tr -d '\n' <"$work/resolver")
}

start_ca() {
  build_if_absent
  http=$(free_port)
  tls=$(free_port)
  must "artstore-pki init" "$pki" init --dir "$work/ca" --name Interop \
    --dns localhost --dns 127.0.0.1 --address 127.0.0.1:0
  sed -i "s|^provisioners:|&\n  - {type: ACME, name: acme, resolver: '$resolver', http_port: $http, tls_port: $tls, networks: [127.0.0.0/8]}|
    s|^profiles:|&\n  web: {names: [web.example, www.web.example, shared.example], acme: true}\n  site: {names: [site.example, rsa.example, shared.example], acme: true, lifetime: {default: 30s, min: 10s}}|" "$work/ca/pki.yaml"
  "$pki" serve --dir "$work/ca" --listen 127.0.0.1:0 --ready-file "$work/url" >"$work/serve.log" 2>&1 &
  server=$!
  wait_for_file "$work/url"
  url=$(tr -d '\n' <"$work/url")
  directory=$url/acme/acme/directory
  cp "$work/ca/certs/root_ca.crt" "$work/roots.crt"
  echo "ok   artstore-pki serve"
}

# gone FILE TEXT: what a client revoked is revoked.
gone() { must "$2: it is on the list" revoked "$1"; }

# certbot_logged TEXT PATTERN COMMAND…: certbot 2.1 on Python 3.11 fails to print some
# problems ("can't set attribute"); its log has them, as docs/acme.md says.
certbot_logged() {
  refused "$1" "$2|AttributeError: can't set attribute" "${@:3}"
  cp "$work/certbot.logs/letsencrypt.log" "$work/out"
  said "$1: its log says why" "$2"
}

with_certbot() {
  local live=$work/certbot/live/web.example
  local certbot=(certbot --non-interactive --config-dir "$work/certbot" --work-dir "$work/certbot.work" --logs-dir "$work/certbot.logs" --server "$directory")
  export REQUESTS_CA_BUNDLE=$work/roots.crt
  cat >"$work/hook" <<EOF
#!/bin/sh
echo "\$CERTBOT_VALIDATION" >"$work/txt/_acme-challenge.\$CERTBOT_DOMAIN"
EOF
  chmod 0755 "$work/hook"
  must "certbot: http-01" "${certbot[@]}" certonly --agree-tos --register-unsafely-without-email \
    --standalone --http-01-port "$http" -d web.example -d www.web.example
  must "certbot: openssl verifies" verified "$live/fullchain.pem"
  cp "$live/cert.pem" "$work/before.pem"
  must "certbot: renew" "${certbot[@]}" renew --force-renewal --no-random-sleep-on-renew
  must "certbot: another serial" differ <(serial "$work/before.pem") <(serial "$live/cert.pem")
  must "certbot: dns-01" "${certbot[@]}" certonly --force-renewal --manual --preferred-challenges dns \
    --manual-auth-hook "$work/hook" -d web.example -d www.web.example
  must "certbot: openssl verifies" verified "$live/fullchain.pem"
  certbot_logged "certbot: a name of no profile" 'no profile with acme: true has all of' "${certbot[@]}" certonly --standalone --http-01-port "$http" -d evil.example
  refused "certbot: nobody answers" 'connecting to web.example:.*connection refused' "${certbot[@]}" certonly --force-renewal --standalone --http-01-port "$(free_port)" -d web.example
  certbot_logged "certbot: a kind of key that the profile does not have" 'key type RSA-2048 is none of' "${certbot[@]}" certonly --standalone --http-01-port "$http" --cert-name weak --key-type rsa --rsa-key-size 2048 -d web.example
  must "certbot: revoke by the account" "${certbot[@]}" revoke --cert-path "$live/cert.pem" --no-delete-after-revoke --reason superseded
  gone "$live/cert.pem" certbot
  must "certbot: revoke by the key" "${certbot[@]}" revoke --cert-path "$work/before.pem" --key-path "$work"/certbot/archive/web.example/privkey1.pem --no-delete-after-revoke
  gone "$work/before.pem" certbot
}

# with_lego KIND OPTION…
with_lego() {
  local kind=$1 home=$work/lego-$1
  shift
  local lego=(lego --accept-tos --email ops@web.example --server "$directory" --path "$home" --domains web.example "$@")
  local crt=$home/certificates/web.example.crt
  export LEGO_CA_CERTIFICATES=$work/roots.crt
  must "lego: $kind" "${lego[@]}" run
  must "lego: openssl verifies" verified "$crt"
  cp "$crt" "$work/before.pem"
  must "lego: renew" "${lego[@]}" renew --no-random-sleep
  must "lego: another serial" differ <(serial "$work/before.pem") <(serial "$crt")
  cp "$crt" "$work/after.pem"
  must "lego: revoke" "${lego[@]}" revoke --keep
  gone "$work/after.pem" lego
}

lego_everything() {
  cat >"$work/txt.sh" <<EOF
#!/bin/sh
[ "\$1" != present ] || echo "\$3" >"$work/txt/\${2%.}"
EOF
  chmod 0755 "$work/txt.sh"
  with_lego http-01 --http --http.port "127.0.0.1:$http"
  with_lego tls-alpn-01 --tls --tls.port "127.0.0.1:$tls"
  local lego=(lego --accept-tos --email ops@web.example --server "$directory" --path "$work/lego-http-01")
  refused "lego: a name of no profile" 'no profile with acme: true has all of' "${lego[@]}" --domains evil.example --http --http.port "127.0.0.1:$http" run
  refused "lego: nobody answers" 'connecting to web.example:.*connection refused' "${lego[@]}" --domains web.example --http --http.port "127.0.0.1:$(free_port)" run
  refused "lego: a kind of key that the profile does not have" 'key type RSA-2048 is none of' "${lego[@]}" --domains web.example --key-type rsa2048 --http --http.port "127.0.0.1:$http" run
  EXEC_PATH=$work/txt.sh with_lego dns-01 --dns exec --dns.disable-cp --dns.resolvers "$resolver"
}

# with_lego5 KIND WHERE
with_lego5() {
  local dir=$work/lego5-$1
  mkdir "$dir"
  must "lego v5: $1, obtain, renew, revoke" "$lego5" "$directory" "$1" web.example "$2" "$dir"
  must "lego v5: openssl verifies" verified "$dir/second.pem"
  must "lego v5: another serial" differ <(serial "$dir/first.pem") <(serial "$dir/second.pem")
  gone "$dir/first.pem" "lego v5"
  gone "$dir/second.pem" "lego v5"
}

lego5_everything() {
  if [ -z "$lego5" ]; then
    lego5=$work/lego5
    (cd e2e/lego && CGO_ENABLED=0 go build -o "$lego5" .)
  fi
  export LEGO_CA_CERTIFICATES=$work/roots.crt
  with_lego5 http-01 "$http"
  with_lego5 tls-alpn-01 "$tls"
  with_lego5 dns-01 "$work/txt"
  mkdir "$work/lego5-ari"
  must "lego v5: renews when an order has moved its window (ARI)" "$lego5" ari "$directory" web.example "$http" "$work/lego5-ari" \
    "$pki" renewal force --dir "$work/ca" --within 1s --serial
  must "lego v5: another serial" differ <(serial "$work/lego5-ari/first.pem") <(serial "$work/lego5-ari/second.pem")
  must "artstore-pki renewal status" "$pki" renewal status --dir "$work/ca"
  said "the order counts the client of ACME" '1 of 1|no order is open'
}

# certbot5_renews: of two certificates, neither of which is due, the one is renewed that an order
# is for. certbot draws a moment of the window, so the second of the order has to be over.
certbot5_renews() {
  [ -n "$certbot5" ] || certbot5=$(bash scripts/debian-certbot.sh "$work/certbot5.program")
  local live=$work/certbot5/live name decimal
  local certbot=("$certbot5" --non-interactive --config-dir "$work/certbot5" --work-dir "$work/certbot.work" --logs-dir "$work/certbot.logs" --server "$directory")
  for name in web.example www.web.example; do
    must "certbot 5: obtain" "${certbot[@]}" certonly --agree-tos --register-unsafely-without-email --standalone --http-01-port "$http" -d "$name"
    cp "$live/$name/cert.pem" "$work/before.$name.pem"
  done
  decimal=$(/usr/bin/python3 -c 'import sys; print(int(sys.argv[1], 16))' "$(serial "$live/web.example/cert.pem")")
  must "artstore-pki renewal force" "$pki" renewal force --dir "$work/ca" --within 1s --serial "$decimal"
  sleep 1.5
  must "certbot 5: renew" "${certbot[@]}" renew --no-random-sleep-on-renew
  said "certbot 5: nothing is due without an order" 'www.web.example/fullchain.pem expires on .*skipped'
  must "certbot 5: renews when an order has moved its window (ARI)" differ "$work/before.web.example.pem" "$live/web.example/cert.pem"
  must "certbot 5: openssl verifies" verified "$live/web.example/fullchain.pem"
  must "certbot 5: and not without an order" cmp "$work/before.www.web.example.pem" "$live/www.web.example/cert.pem"
  cp "$work/certbot.logs/letsencrypt.log" "$work/out"
  said "certbot 5: it has asked for the renewal information" 'GET .*/renewal-info/'
}

# logged TEXT PATTERN SECONDS: Caddy retries for ever, so its log is where it says so.
logged() {
  local deadline=$((SECONDS + $3))
  until grep -Eq "$2" "$work/caddy.log"; do
    if ! kill -0 "$caddy" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
      tail -n 20 "$work/caddy.log" >"$work/out"
      echo "FAIL $1" >&2
      exit 1
    fi
    sleep 0.3
  done
  echo "ok   $1"
}

# served NAME FILE: the certificate that Caddy shows.
served() { openssl s_client -connect "127.0.0.1:$tls" -servername "$1" </dev/null 2>/dev/null | openssl x509 -out "$2"; }

# with_caddy: certificates of 30 s are renewed after 20 s. Caddy has no command to
# revoke, but its key may (RFC 8555 §7.6), by the hand of certbot.
with_caddy() {
  cat >"$work/Caddyfile" <<EOF
{
  admin off
  acme_ca $directory
  acme_ca_root $work/roots.crt
  http_port $http
  https_port $tls
  renew_interval 2s
  storage file_system $work/caddy
}
site.example, evil.example, shared.example {
  respond ok
}
rsa.example {
  tls {
    key_type rsa2048
  }
}
EOF
  caddy run --config "$work/Caddyfile" --adapter caddyfile >"$work/caddy.log" 2>&1 &
  caddy=$!
  logged "caddy: obtain" 'certificate obtained successfully.*site.example' 60
  logged "caddy: a name of no profile" 'no profile with acme: true has all of .*evil.example' 60
  logged "caddy: a name of two profiles" 'names of more than one service: site, web' 60
  logged "caddy: a kind of key that the profile does not have" 'key type RSA-2048 is none of' 60
  must "caddy: it is served" served site.example "$work/before.pem"
  logged "caddy: renew" 'certificate renewed successfully.*site.example' 90
  must "caddy: it is served" served site.example "$work/after.pem"
  must "caddy: another serial" differ <(serial "$work/before.pem") <(serial "$work/after.pem")
  local dir
  dir=$(dirname "$(find "$work/caddy" -name site.example.crt)")
  cp "$dir/site.example.crt" "$work/after.pem"
  must "caddy: openssl verifies" verified "$work/after.pem"
  must "caddy: revoke by the key" certbot --non-interactive --config-dir "$work/certbot" --work-dir "$work/certbot.work" --logs-dir "$work/certbot.logs" \
    --server "$directory" revoke --cert-path "$work/after.pem" --key-path "$dir/site.example.key" --no-delete-after-revoke
  gone "$work/after.pem" caddy
  kill "$caddy"
  wait "$caddy" 2>/dev/null || true
  caddy=
}

with_step() {
  must "step ca bootstrap" "$step" ca bootstrap --ca-url "$url" --fingerprint "$("$pki" fingerprint --dir "$work/ca")" --force
  must "step: http-01" "$step" ca certificate web.example "$work/s.crt" "$work/s.key" --provisioner acme \
    --san web.example --san www.web.example --http-listen "127.0.0.1:$http"
  must "step: openssl verifies" verified "$work/s.crt"
  cp "$work/s.crt" "$work/before.pem"
  must "step: renew" "$step" ca renew --force "$work/s.crt" "$work/s.key"
  must "step: another serial" differ <(serial "$work/before.pem") <(serial "$work/s.crt")
  must "step: revoke" "$step" ca revoke --cert "$work/s.crt" --key "$work/s.key"
  gone "$work/s.crt" step
}

step_refusals() {
  local step_acme=("$step" ca certificate --force --provisioner acme)
  refused "step: a name of no profile" 'no profile with acme: true has all of' "${step_acme[@]}" evil.example "$work/x.crt" "$work/x.key" --http-listen "127.0.0.1:$http"
  refused "step: nobody answers" 'connecting to web.example:.*connection refused' "${step_acme[@]}" web.example "$work/x.crt" "$work/x.key" --http-listen "127.0.0.1:$(free_port)"
  refused "step: a kind of key that the profile does not have" 'key type RSA-2048 is none of' "${step_acme[@]}" web.example "$work/x.crt" "$work/x.key" --kty RSA --size 2048 --http-listen "127.0.0.1:$http"
}

# renew_all STAGE: each client renews, and what it has got verifies with the bundle of the moment.
renew_all() {
  must "certbot: renew, $1" "${stages_certbot[@]}" renew --cert-name stages --force-renewal --no-random-sleep-on-renew
  must "certbot: openssl verifies, $1" verified "$work/certbot/live/stages/fullchain.pem"
  must "lego: renew, $1" "${stages_lego[@]}" renew --no-random-sleep
  must "lego: openssl verifies, $1" verified "$work/lego-stages/certificates/web.example.crt"
  must "step: renew, $1" "$step" ca renew --force --root "$work/roots.crt" "$work/stages.crt" "$work/stages.key"
  must "step: openssl verifies, $1" verified "$work/stages.crt"
}

# take STEP…: a step that leaves the clients behind, which report no bundle. Theirs is a file that
# the operator brings up to date.
take() {
  must "artstore-pki root $1" "$pki" root "$@" --dir "$work/ca"
  cp "$work/ca/certs/root_ca.crt" "$work/roots.crt"
}

# through_stages: the clients renew at each stage of a new root without a word.
through_stages() {
  local old
  old=$("$pki" fingerprint --dir "$work/ca")
  stages_certbot=(certbot --non-interactive --config-dir "$work/certbot" --work-dir "$work/certbot.work" --logs-dir "$work/certbot.logs" --server "$directory")
  stages_lego=(lego --accept-tos --email ops@web.example --server "$directory" --path "$work/lego-stages" --domains web.example --http --http.port "127.0.0.1:$http")
  must "certbot: obtain, for the stages" "${stages_certbot[@]}" certonly --cert-name stages --standalone --http-01-port "$http" -d web.example
  must "lego: obtain, for the stages" "${stages_lego[@]}" run
  must "step: obtain, for the stages" "$step" ca certificate web.example "$work/stages.crt" "$work/stages.key" --provisioner acme --http-listen "127.0.0.1:$http"
  take add
  renew_all staged
  refused "a client that reports no bundle is in the way" 'would cut off' "$pki" root activate --dir "$work/ca"
  take activate --accept web
  renew_all active
  take rollback --accept web
  renew_all "rolled back"
  take activate --accept web
  renew_all "active again"
  take remove "$old" --accept web
  renew_all "the old root gone"
}

# need_keys: from here on, new accounts show a key of the operator.
need_keys() {
  sed -i 's|name: acme,|& require_eab: true,|' "$work/ca/pki.yaml"
  kill -HUP "$server"
  local tries
  for tries in $(seq 100); do
    curl -sSf --cacert "$work/roots.crt" -o "$work/out" "$directory" && grep -q externalAccountRequired "$work/out" && return
    sleep 0.1
  done
  echo "FAIL accounts need no key after $tries tries" >&2
  exit 1
}

# new_key FILE: kid and hmac are set to those of a new key for profile web.
new_key() {
  must "artstore-pki acme eab create" "$pki" acme eab create --dir "$work/ca" --profile web -o json --out "$1"
  kid=$(sed -n 's/.*"kid": "\(.*\)",/\1/p' "$1")
  hmac=$(sed -n 's/.*"hmac_key": "\(.*\)"/\1/p' "$1")
}

with_keys() {
  need_keys
  local certbot=(certbot --non-interactive --config-dir "$work/eab" --work-dir "$work/certbot.work" --logs-dir "$work/certbot.logs" --server "$directory")
  local lego=(lego --accept-tos --email ops@web.example --server "$directory" --path "$work/lego-eab" --domains web.example --http --http.port "127.0.0.1:$http")
  refused "certbot: no key" 'external account binding' "${certbot[@]}" register --agree-tos --register-unsafely-without-email
  new_key "$work/key1"
  must "certbot: register with a key" "${certbot[@]}" register --agree-tos --register-unsafely-without-email --eab-kid "$kid" --eab-hmac-key "$hmac"
  must "certbot: obtain with it" "${certbot[@]}" certonly --standalone --http-01-port "$http" -d web.example
  refused "lego: no key" 'EAB|external account binding' "${lego[@]}" run
  refused "lego: a key that was used" 'unknown, used, revoked or expired' "${lego[@]}" --eab --kid "$kid" --hmac "$hmac" run
  new_key "$work/key2"
  must "lego: obtain with a key" "${lego[@]}" --eab --kid "$kid" --hmac "$hmac" run
  must "artstore-pki acme eab revoke" "$pki" acme eab revoke --dir "$work/ca" "$kid"
  refused "lego: its key was revoked" 'external account key of this account was revoked' "${lego[@]}" --eab --kid "$kid" --hmac "$hmac" renew --no-random-sleep
  new_key "$work/key3"
  mkdir "$work/lego5-eab"
  must "lego v5: key, profile, key change, obtain, renew, revoke" "$lego5" "$directory" http-01 web.example "$http" "$work/lego5-eab" "$work/key3"
  must "lego v5: openssl verifies" verified "$work/lego5-eab/second.pem"
}

start_dns
start_ca
with_certbot
lego_everything
lego5_everything
certbot5_renews
with_caddy
with_step
step_refusals
through_stages
with_keys
