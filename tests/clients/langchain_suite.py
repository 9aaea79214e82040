"""The integration suite of langchain-tests for chat models, with langchain-openai against a running server.

``test_server_clients.py`` runs it in a process of its own, for langchain-tests brings plugins of pytest and wants its own settings.
"""

from __future__ import annotations

import os
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests


class TestServer(ChatModelIntegrationTests):
    """What is not said to be supported is skipped: tools, images, audio and documents."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        """OpenAI's, as users have it."""
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """Where the server is."""
        return {"model": os.environ["RSD_MODEL"], "base_url": f"{os.environ['RSD_URL']}/v1", "api_key": "none", "stream_usage": True}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        """Short answers, for the model is small and the machine may be slow."""
        return {"temperature": 0, "max_tokens": 8, "timeout": 240, "max_retries": 0}

    @property
    def has_tool_calling(self) -> bool:
        """The server refuses tools by name."""
        return False

    @property
    def has_structured_output(self) -> bool:
        """It needs more of a model than this one can."""
        return False

    @property
    def supports_model_override(self) -> bool:
        """Each strategy is a model."""
        return True

    @property
    def model_override_value(self) -> str:
        """The target alone."""
        return f"{os.environ['RSD_MODEL']}:target"
