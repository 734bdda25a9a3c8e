"""Messages: values that are sent to a workflow, from outside or by another workflow, and that it receives once each."""

from dbosflow.messages.first import Message
from dbosflow.messages.receiving import recv, recv_async
from dbosflow.messages.requests import AsyncRequest, Request, requests
from dbosflow.messages.sending import send, send_async
from dbosflow.messages.tokens import Token, create_token, create_token_async

__all__ = [
    "AsyncRequest",
    "Message",
    "Request",
    "Token",
    "create_token",
    "create_token_async",
    "recv",
    "recv_async",
    "requests",
    "send",
    "send_async",
]
