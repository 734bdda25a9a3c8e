"""Streams in the words of other libraries: the AI SDK's UI messages, and OpenAI's chunks and responses."""

from dbosflow.http.adapters.chat import ChatRoutes, chat
from dbosflow.http.adapters.openai import OpenAiRoutes, openai
from dbosflow.http.adapters.openai_chunks import ChatChunks, ResponseEvents
from dbosflow.http.adapters.ui_messages import UiMessages

__all__ = ["ChatChunks", "ChatRoutes", "OpenAiRoutes", "ResponseEvents", "UiMessages", "chat", "openai"]
