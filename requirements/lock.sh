#!/usr/bin/env bash
# Writes every lock of this folder anew: exact versions with hashes, no registry host.
# A release younger than a week is left alone, so that a poisoned one is found before it reaches us;
# google-genai and anthropic are exempt: the tests pin the SDKs whose wire behaviour the docs describe.
set -euo pipefail
cd "$(dirname "$0")/.."
before=${1:-$(date -u -d '7 days ago' +%F)}
for lock in run dev image bench langchain rivals; do # image.txt takes its versions from dev.txt
  uv pip compile -q --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-header --no-emit-package headgate \
    --exclude-newer "$before" --exclude-newer-package "google-genai=$(date -u +%F)" \
    --exclude-newer-package "anthropic=$(date -u +%F)" \
    "requirements/$lock.in" -o "requirements/$lock.txt"
done
