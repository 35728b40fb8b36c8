#!/usr/bin/env bash
# The certbot of Debian sid, which obeys renewal information (RFC 9773), beside the older one of
# a stable Debian. Nothing is installed: certbot and all that it needs, down to the C library, are
# unpacked into a directory and run from there. Takes mmdebstrap, and a mirror.
#
#   scripts/debian-certbot.sh DIR
#
# Prints the path of the program. A directory that is there already is used as it is.
set -euo pipefail

dir=$(realpath -m "$1")
if [ ! -x "$dir/certbot" ]; then
  echo "unpacking certbot of Debian sid" >&2
  rm -rf "$dir" "$dir.new"
  mkdir -p "$dir.new"
  # Signatures are verified; that a mirror is weeks behind does not matter here.
  mmdebstrap --quiet --variant=extract --include=certbot --aptopt='Acquire::Check-Valid-Until "false"' \
    sid "$dir.new/root" >&2
  usr=$dir.new/root/usr
  loader=$(find "$usr"/lib* -maxdepth 2 -name 'ld-linux*.so.*' | head -n 1)
  libraries=$(dirname "$(find "$usr/lib" -name libc.so.6 | head -n 1)")
  cat >"$dir.new/certbot" <<EOF
#!/bin/sh
PYTHONHOME='$dir/root/usr' exec '$dir${loader#"$dir.new"}' --library-path '$dir${libraries#"$dir.new"}' '$dir/root/usr/bin/python3' -B '$dir/root/usr/bin/certbot' "\$@"
EOF
  chmod 0755 "$dir.new/certbot"
  mv "$dir.new" "$dir" # whole: an interrupted run leaves nothing that is used
fi
echo "$dir/certbot"
