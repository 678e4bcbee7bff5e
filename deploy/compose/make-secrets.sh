#!/usr/bin/env bash
# Makes what compose.yaml needs to start: a folder of secrets, and .env, which says whose they are.
#
#   deploy/compose/make-secrets.sh < keys          # Gemini keys from standard input: key|name|project a line
#
# Passwords and keys are random. Files that exist are left as they are, so it can be run again.
set -euo pipefail
umask 077
cd "$(dirname "$0")"
mkdir -p secrets

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
keep() { # FILE TEXT: write it, unless it is there
  [[ -s secrets/$1 ]] || printf '%s\n' "$2" > "secrets/$1"
}

if [[ ! -s secrets/gemini_keys ]]; then
  if [[ -t 0 ]]; then
    echo "Enter Gemini keys, one a line (key|name|project), and end with Ctrl-D:" >&2
  fi
  cat > secrets/gemini_keys
  if ! grep -q '[^[:space:]]' secrets/gemini_keys; then
    rm secrets/gemini_keys
    echo "No Gemini key was given. Give the keys on standard input: make-secrets.sh < keys" >&2
    exit 1
  fi
fi
keep admin_key "$(random)"
keep valkey_password "$(random)"
keep grafana_password "$(random)"
if [[ ! -s secrets/metrics_key ]]; then
  printf '%s' "$(random)" > secrets/metrics_key
fi
keep caller_keys "$(random)|first-caller
$(cat secrets/metrics_key)|prometheus"

# The containers run as whom the files belong to. Nobody runs as root: root hands the files to another.
owner="$(id -u):$(id -g)"
if [[ $owner == 0:* ]]; then
  owner=10001:10001
  chown -R "$owner" secrets
fi
printf 'HEADGATE_USER=%s\n' "$owner" > .env
echo "The secrets are in $(pwd)/secrets. First caller: the first line of caller_keys; Grafana: admin, grafana_password."
