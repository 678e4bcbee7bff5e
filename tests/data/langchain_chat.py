"""What a user of LangChain writes, run by its own Python. Each step prints what it gave as a JSON line.

It knows nothing of Headgate: the environment says where calls go, as `headgate env` prints it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_google_genai import ChatGoogleGenerativeAI, GoogleGenerativeAIEmbeddings
from pydantic import BaseModel

ASKED = [SystemMessage("Answer in one sentence."), HumanMessage("How does a headgate share water?")]


class Gate(BaseModel):
    """A gate of an irrigation channel."""

    name: str
    width: float


@tool
def water_level(place: str) -> float:
    """The water level at a place, in metres."""
    return float(len(place))


def text_of(message: Any) -> str:
    return message.content if isinstance(message.content, str) else message.text


def chat(model: Any) -> dict[str, Any]:
    whole = model.invoke(ASKED)
    pieces = [text_of(piece) for piece in model.stream(ASKED)]
    tools = model.bind_tools([water_level], tool_choice="any").invoke(
        "What is the water level at the north gate?"
    )
    return {
        "text": text_of(whole),
        "tokens": whole.usage_metadata["total_tokens"],
        "pieces": len([piece for piece in pieces if piece]),
        "streamed": "".join(pieces),
        "tools": [call["name"] for call in tools.tool_calls],
    }


def refused(model: Any) -> dict[str, Any]:
    try:
        model.invoke(ASKED)
    except Exception as error:  # the class is each package's own
        return {"kind": type(error).__name__, "said": str(error)[:200]}
    return {"kind": "", "said": ""}


STEPS: dict[str, Callable[[], dict[str, Any]]] = {
    "google": lambda: chat(ChatGoogleGenerativeAI(model="gemini-3.5-flash", max_retries=1)),
    "google schema": lambda: {
        "made": ChatGoogleGenerativeAI(model="gemini-3.5-flash", max_retries=1)
        .with_structured_output(Gate, method="json_schema")
        .invoke("Describe a gate.")
        .model_dump()
    },
    "google vectors": lambda: {
        "length": len(GoogleGenerativeAIEmbeddings(model="gemini-embedding-001").embed_query("water"))
    },
    "google refused": lambda: refused(ChatGoogleGenerativeAI(model="gemini-none-such", max_retries=1)),
    "anthropic": lambda: chat(ChatAnthropic(model="claude-opus-5-5", max_tokens=400, max_retries=0)),
    "anthropic refused": lambda: refused(
        ChatAnthropic(model="claude-none-such", max_tokens=4, max_retries=0)
    ),
}

for name, step in STEPS.items():
    print(json.dumps({"step": name, **step()}))
sys.exit(0)
