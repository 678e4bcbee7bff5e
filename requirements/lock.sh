#!/usr/bin/env bash
# Writes run.txt, dev.txt, bench.txt and langchain.txt anew: exact versions with hashes, no registry host.
# A release younger than a week is left alone, so that a poisoned one is found before it reaches us;
# google-genai and anthropic are exempt: the tests pin the SDKs whose wire behaviour the docs describe.
set -euo pipefail
cd "$(dirname "$0")/.."
before=${1:-$(date -u -d '7 days ago' +%F)}
for lock in run dev bench langchain; do
  uv pip compile -q --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-header --no-emit-package headgate \
    --exclude-newer "$before" --exclude-newer-package "google-genai=$(date -u +%F)" \
    --exclude-newer-package "anthropic=$(date -u +%F)" \
    "requirements/$lock.in" -o "requirements/$lock.txt"
done
