"""LiteLLM's Router, in process and without Redis; the argument is its routing strategy.

Every key is a deployment of one model group with its own `rpm` and `tpm`. Retries are the Router's
(three, and none within a deployment); cool-downs are its defaults.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from bench.quota.protocol import Ask, Setup, serve

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks the internet for prices
os.environ["LITELLM_LOG"] = "ERROR"


@asynccontextmanager
async def contender(setup: Setup) -> AsyncIterator[Ask]:
    import litellm  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - after the settings

    litellm.suppress_debug_info = True
    limits = [{"rpm": key.rpm, "tpm": key.tpm} for key in setup.keys]
    deployments = [
        {
            "model_name": "pool",
            "litellm_params": {
                "model": f"gemini/{setup.model}",
                "api_base": f"{setup.base_url}/v1beta",
                "api_key": key.value,
                "max_retries": 0,
                **{name: value for name, value in limit.items() if value},
            },
        }
        for key, limit in zip(setup.keys, limits, strict=True)
    ]
    router = litellm.Router(
        model_list=deployments,
        routing_strategy=sys.argv[1],
        num_retries=3,
        timeout=setup.patience,
    )

    async def ask(prompt: str) -> None:
        await router.acompletion(model="pool", messages=[{"role": "user", "content": prompt}])

    yield ask


if __name__ == "__main__":
    serve(contender, f"litellm {version('litellm')}")
