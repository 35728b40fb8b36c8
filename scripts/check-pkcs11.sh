#!/usr/bin/env bash
# An authority whose root and intermediate are in a token of SoftHSM: made, checked, rotated and served
# by the command itself, which is built with the tag pkcs11. ARTSTORE_PKI names it.
set -euo pipefail
: "${ARTSTORE_PKI:?}"
work=$(mktemp -d)
trap 'kill "${serve:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
die() { echo "check-pkcs11: $*" >&2; exit 1; }

mkdir tokens
echo "directories.tokendir = $work/tokens" >softhsm2.conf
export SOFTHSM2_CONF=$work/softhsm2.conf
(umask 077; echo 4711-for-tests >pin)
softhsm2-util --init-token --free --label pki --pin 4711-for-tests --so-pin 4711-for-tests >/dev/null
module=/usr/lib/softhsm/libsofthsm2.so
token="pkcs11:module-path=$module;token=pki?pin-source=$work/pin"
(umask 077; echo correct-horse-battery >pw)

"$ARTSTORE_PKI" init --dir ca --password-file pw --root-kms "$token" --intermediate-kms "$token" --root-key-type EC-P384
[ "$(pkcs11-tool --module "$module" --token-label pki --list-objects --type pubkey 2>/dev/null | grep -c artstore-pki-)" -eq 2 ] || die "the token does not have two keys"
[ "$(find ca/secrets -name '*.key' ! -name log.key | wc -l)" -eq 0 ] || die "a key of a CA certificate is in a file"
openssl verify -x509_strict -CAfile ca/certs/root_ca.crt ca/certs/intermediate_ca.crt

"$ARTSTORE_PKI" serve --dir ca --password-file pw --listen 127.0.0.1:0 --ready-file url &
serve=$!
for _ in $(seq 100); do [ -s url ] && break; sleep 0.1; done
url=$(cat url)
(umask 077; "$ARTSTORE_PKI" token ingester --dir ca --password-file pw >one-time)
"$ARTSTORE_PKI" issue --ca-url "$url" --token-file one-time --root-fingerprint "$("$ARTSTORE_PKI" fingerprint --dir ca)" --out ingester
openssl verify -x509_strict -CAfile ca/certs/root_ca.crt -untrusted ca/certs/intermediate_ca.crt ingester/tls.crt
kill "$serve"; wait "$serve" || true

"$ARTSTORE_PKI" intermediate rotate --dir ca --password-file pw
openssl verify -x509_strict -CAfile ca/certs/root_ca.crt ca/certs/intermediate_ca.crt
[ "$(pkcs11-tool --module "$module" --token-label pki --list-objects --type pubkey 2>/dev/null | grep -c artstore-pki-)" -eq 3 ] || die "the new intermediate has no key in the token"
"$ARTSTORE_PKI" backup --dir ca saved.tar
"$ARTSTORE_PKI" restore --dir restored saved.tar
"$ARTSTORE_PKI" intermediate rotate --dir restored --password-file pw
chmod 0644 pin
"$ARTSTORE_PKI" doctor --dir restored --password-file pw >findings || true
grep -q "$work/pin has mode 0644" findings || die "a PIN for all to read is not found: $(cat findings)"
chmod 0600 pin

mv pin away
if "$ARTSTORE_PKI" serve --dir ca --password-file pw --listen 127.0.0.1:0 2>err; then die "served without a PIN"; fi
grep -q 'reading the PIN' err || die "$(cat err)"
echo "check-pkcs11: keys of root and intermediate in a token"
