"""Streams in the words of other libraries: the AI SDK's UI messages."""

from dbosflow.http.adapters.chat import ChatRoutes, chat
from dbosflow.http.adapters.ui_messages import UiMessages

__all__ = ["ChatRoutes", "UiMessages", "chat"]
