"""An upstream to test, benchmark and demonstrate against: real quotas, real errors, scripted faults.

    config = EmulatorConfig(projects=[Project("alpha", keys={"alpha-1": "AIza…"})])
    async with Emulator(config) as emulator:
        ...  # point any Gemini client at emulator.base_url
        print(emulator.report().to_dict())

Nothing of the client is in here, so that it judges independently. docs/reference/emulator.md has
the configuration file, the faults and the report.
"""

from headgate.emulator.anthropic_config import Organisation, TokenLimits
from headgate.emulator.codegen_config import CodegenTeam
from headgate.emulator.config import EmulatorConfig, Fault, Latency, Limits, Model, Project
from headgate.emulator.openai_config import OpenAILimits, OpenAIOrganisation
from headgate.emulator.report import (
    Counts,
    KeyReport,
    ModelReport,
    ProjectReport,
    QuotaReport,
    Report,
)
from headgate.emulator.server import Emulator, serve_forever
from headgate.emulator.threaded import InThread

__all__ = [
    "CodegenTeam",
    "Counts",
    "Emulator",
    "EmulatorConfig",
    "Fault",
    "InThread",
    "KeyReport",
    "Latency",
    "Limits",
    "Model",
    "ModelReport",
    "OpenAILimits",
    "OpenAIOrganisation",
    "Organisation",
    "Project",
    "ProjectReport",
    "QuotaReport",
    "Report",
    "TokenLimits",
    "serve_forever",
]
