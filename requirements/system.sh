#!/usr/bin/env bash
# Programs that the tests drive and Python's index does not have: Prometheus with promtool, nginx, Chromium.
# Each that is missing comes from Debian's packages; without root or apt-get, it says what to install.
set -euo pipefail

declare -A package=([prometheus]=prometheus [promtool]=prometheus [nginx]=nginx-light [chromium]=chromium)
missing=()
for program in "${!package[@]}"; do
  # Debian puts nginx into /usr/sbin, which an ordinary user's PATH may lack.
  PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null || missing+=("${package[$program]}")
done
((${#missing[@]})) || exit 0

wanted=$(printf '%s\n' "${missing[@]}" | sort -u | tr '\n' ' ')
root=()
if ((EUID != 0)); then
  root=(sudo -n)
fi
if ! command -v apt-get >/dev/null || ! "${root[@]}" true 2>/dev/null; then
  echo "The tests drive programs that this machine lacks: $wanted" >&2
  echo "Install them (Debian: apt-get install $wanted) and run make test again." >&2
  exit 1
fi

# The packages' own daemons are not wanted: the tests start what they need, on ports of their own.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
  printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
  "${root[@]}" chmod +x "$policy"
  trap '"${root[@]}" rm -f "$policy"' EXIT
fi
log=$(mktemp)
echo "Installing $wanted…"
# shellcheck disable=SC2086  # package names are words
if ! { "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update &&
       "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $wanted; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "Debian's packages could not be installed: $wanted" >&2
  exit 1
fi
rm -f "$log"
