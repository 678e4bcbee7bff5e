"""Examples of the help and of docs/reference/cli.md, by command."""

from __future__ import annotations

__all__ = ["EXAMPLES"]

EXAMPLES = {
    "headgate": (
        "headgate demo",
        'headgate ask "Why is the sky blue?"',
        "git diff | headgate ask 'Write the commit message' --json",
        "headgate keys --check",
    ),
    "ask": (
        'headgate ask "What is on this picture?" --image cat.png',
        "headgate ask 'Summarise in five lines' < minutes.txt",
        'headgate ask "Three towns in Peru" --schema towns.json --json',
        'headgate ask "A lighthouse in fog" --model IMAGE-MODEL --output fog.png',
        "git diff | headgate ask 'Review this change' --project . --json",
    ),
    "embed": (
        'headgate embed "A text" "Another"',
        "headgate embed --dimensions 256 < lines.txt > vectors.jsonl",
    ),
    "keys": (
        "headgate keys",
        "headgate keys --check",
        "headgate keys --provider claude",
        "headgate keys --json",
    ),
    "emulator": (
        "headgate emulator",
        "headgate emulator --config quotas.toml --report seen.json",
        "headgate emulator --port 0 --json",
    ),
    "codegen run": (
        'headgate codegen run "Fix the flaky test" --repo 42 --wait',
        "headgate codegen run - --json < task.md",
    ),
    "codegen wait": ("headgate codegen wait 1001 --logs", "headgate codegen wait 1001 --json"),
    "codegen logs": ("headgate codegen logs 1001 --follow", "headgate codegen logs 1001 --json"),
    "codegen list": ("headgate codegen list", "headgate codegen list --limit 200 --json"),
    "codegen bulk": (
        "headgate codegen bulk tasks.txt --journal tasks.journal",
        "headgate codegen bulk tasks.jsonl --workers 3 --json",
    ),
    "codegen webhook-listen": (
        "headgate codegen webhook-listen",
        "headgate codegen webhook-listen --port 9000 --json",
    ),
    "models list": ("headgate models list", "headgate models list --all --json"),
    "models info": ("headgate models info gemini-flash-latest", "headgate models info MODEL --json"),
    "models recommend": (
        'headgate models recommend "summarise long documents"',
        "headgate models recommend coding --needs function_calling --budget 0.003",
    ),
    "models check": (
        "headgate models check gemini-3.8-flash",
        "headgate models check MODEL ANOTHER --probe --json",
    ),
    "usage": (
        "headgate usage",
        "headgate usage --by model --since 7d",
        "headgate usage --caller billing --by month --json",
    ),
    "explain": ("headgate explain 5f1c0a9be2d84410", "headgate explain 5f1c0a9be2d84410 --json"),
    "cache stats": ("headgate cache stats", "headgate cache stats --json"),
    "cache clear": ("headgate cache clear", "headgate cache clear --namespace 'docs-*' --json"),
    "backend status": ("headgate backend status", "headgate backend status --offline --json"),
    "demo": ("headgate demo", "headgate demo --json 2>/dev/null"),
    "serve": (
        "headgate serve",
        "headgate serve --host 0.0.0.0 --port 8080",
        "headgate serve --workers 4",
    ),
    "callers create": (
        "headgate callers create search-team --rpm 120 --budget 25 --window month",
        "headgate callers create nightly --model '*-flash*' --expires 30d --json",
    ),
    "callers list": ("headgate callers list", "headgate callers list --json"),
    "callers show": ("headgate callers show search-team",),
    "callers rotate": ("headgate callers rotate search-team --grace 7d",),
    "callers revoke": ("headgate callers revoke nightly",),
    "callers set-limits": (
        "headgate callers set-limits search-team --rpm none --tpm 200000",
        "headgate callers set-limits nightly --budget 5 --window day --json",
    ),
    "env": ('eval "$(headgate env)"', "headgate env --url http://gateway.example:8080 --json"),
    "content serve": ("headgate content serve", "headgate content serve --host 0.0.0.0 --port 8080"),
    "config check": ("headgate config check", "headgate config check --json"),
}
"""Examples of the help and of docs/reference/cli.md, by command."""
