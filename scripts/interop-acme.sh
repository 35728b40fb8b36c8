#!/usr/bin/env bash
# ACME clients, unchanged, against a real `artstore-pki serve`: certbot, lego and
# step obtain, renew and revoke by http-01, dns-01 and tls-alpn-01.
#
#   scripts/interop-acme.sh [ARTSTORE_PKI_BINARY]
#
# ARTSTORE_PKI, DNSD, LEGO5 and STEP name the binaries (default: build the first
# three, find the last in PATH); certbot and lego are those of the distribution, and
# LEGO5 is the library of lego v5 in e2e/lego. Ports are
# free ones, names are those of a DNS server of the script's own, and no program
# reads configuration from outside a temporary directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step=${STEP:-step}
dnsd=${DNSD:-}
lego5=${LEGO5:-}
pki=${1:-${ARTSTORE_PKI:-}}
# shellcheck source=scripts/checks.sh
. scripts/checks.sh

dns=
stop_dns() {
  [ -z "$dns" ] || kill "$dns" 2>/dev/null || true
}
trap 'finish; stop_dns' EXIT

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
    s|^profiles:|&\n  web: {names: [web.example, www.web.example], acme: true}|" "$work/ca/pki.yaml"
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
  refused "lego: a name of no profile is refused" 'no profile with acme' lego --accept-tos --email ops@web.example \
    --server "$directory" --path "$work/lego-http-01" --domains evil.example --http --http.port "127.0.0.1:$http" run
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

start_dns
start_ca
with_certbot
lego_everything
lego5_everything
with_step
