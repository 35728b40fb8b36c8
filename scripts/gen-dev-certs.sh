#!/usr/bin/env bash
# Certificates for every ArtStore service and for localhost, in a directory:
#
#   scripts/gen-dev-certs.sh DIR [--lifetime 14d] [--expired] [--not-yet-valid] [--dry-run] [--renew]
#
# Run it again whenever you like: it replaces only what must be, and says why.
# All of it is `artstore-pki dev certs`, whose --help says more; this builds the
# program first, into dist/. ARTSTORE_PKI names one that is built already.
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

pki=${ARTSTORE_PKI:-}
if [ -z "$pki" ]; then
  pki=$root/dist/artstore-pki
  command -v go >/dev/null || {
    echo "gen-dev-certs: error: go is missing, and ARTSTORE_PKI names no artstore-pki" >&2
    echo "gen-dev-certs: hint: install Go 1.26 or newer" >&2
    exit 1
  }
  (cd -- "$root" && CGO_ENABLED=0 go build -o "$pki" ./cmd/artstore-pki)
fi
exec "$pki" dev certs "$@"
