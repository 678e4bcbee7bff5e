#!/usr/bin/env bash
# Replaces the three instances one after the other, without a failed request: nginx sends an instance
# nothing more before it is told to end.
#
#   deploy/compose/roll.sh                  # with the image that `docker compose build` made
set -euo pipefail
cd "$(dirname "$0")"
upstream=../nginx/upstream.conf
before=$(mktemp)
cp "$upstream" "$before"
tell() { docker compose kill --signal HUP nginx; sleep 2; }
restore() { cat "$before" > "$upstream"; tell; }
trap restore EXIT
for number in 1 2 3; do
  sed "s/^\( *server 172\.29\.83\.1$number:.*\);/\1 down;/" "$before" > "$upstream"
  tell
  docker compose up --detach --no-deps --force-recreate --wait "backend-$number"
  restore
done
