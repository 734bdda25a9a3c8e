"""Messages: values that are sent to a workflow, from outside or by another workflow, and that it receives once each."""

from dbosflow.messages.receiving import recv, recv_async
from dbosflow.messages.sending import send, send_async

__all__ = ["recv", "recv_async", "send", "send_async"]
