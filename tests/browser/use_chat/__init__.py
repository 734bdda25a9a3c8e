"""The real ``useChat`` of npm's ``@ai-sdk/react`` in a browser, before a chat of ``dbosflow.http.adapters``."""
