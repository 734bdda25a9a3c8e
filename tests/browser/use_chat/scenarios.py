"""What one does on the page with ``useChat``, and what it shows then."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from tests.browser.stage import PATIENCE
from tests.browser.use_chat.flows import BREAKS_OFF, CALLS, SLOWLY, TEXT, WRONG

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

    from tests.browser.stage import Stage


class Chat:
    """The page in a browser of its own."""

    def __init__(self, context: BrowserContext, stage: Stage) -> None:
        self.stage = stage
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE * 1000)
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))

    def open(self, chat: str = "chat-1") -> None:
        """Opens a chat."""
        self.page.goto(f"{self.stage.url}#{chat}")
        self.page.reload()  # another part behind the # loads nothing

    def ask(self, question: str = "tell") -> None:
        """Sends a question."""
        self.page.get_by_label("Question").fill(question)
        self.page.get_by_role("button", name="Send").click()

    def until_shown(self, text: str) -> None:
        """Waits until the answer has a text."""
        self.page.wait_for_function("text => document.querySelector('#answer')?.textContent.includes(text)", arg=text)

    def until(self, status: str) -> None:
        """Waits for a status of ``useChat``."""
        self.page.wait_for_function("status => document.querySelector('#status')?.textContent === status", arg=status)

    @property
    def answer(self) -> str:
        """The answer that is shown."""
        return self.page.locator("#answer").text_content() or ""

    @property
    def process(self) -> int:
        """The worker that writes, as the answer says."""
        return int(self.page.locator("#process").inner_text())

    def seen(self) -> list[str]:
        """All that was shown of the answer, since the page was loaded."""
        found: list[str] = self.page.evaluate("window.seen")
        return found

    def check(self) -> None:
        """Claims that the answer is whole, once, and that nothing has failed."""
        self.until_shown(TEXT)
        self.until("ready")
        assert self.answer == TEXT, self.answer
        assert self.page.locator("#roles").inner_text() == "user assistant"
        assert self.page.locator("#error").inner_text() == ""
        assert self.faults == []


def words(text: str, count: int) -> str:
    """The first words of a text."""
    return " ".join(text.split()[:count])


def use_chat_streams(chat: Chat) -> None:
    """Word by word."""
    chat.open()
    chat.ask()
    chat.until("streaming")
    chat.check()
    shown = [text for text in chat.seen() if text]
    assert len(shown) > len(TEXT.split()) // 2
    assert all(TEXT.startswith(text) for text in shown)


def use_chat_reloads(chat: Chat) -> None:
    """In the middle, three times: ``resume`` reads on."""
    chat.open()
    chat.ask()
    for count in (3, 10, 18):
        chat.until_shown(words(TEXT, count))
        chat.page.reload()
    chat.check()


def use_chat_takes_back(chat: Chat) -> None:
    """A call of the model breaks off: its text leaves the page by ``reset-step``, and that of the call before stays."""
    chat.open()
    chat.ask(BREAKS_OFF)
    chat.until_shown(WRONG.strip())
    chat.check()
    shown = chat.seen()
    wrong = next(place for place, text in enumerate(shown) if text.endswith(WRONG))
    assert CALLS[0] in shown[wrong + 1 :], "the step before stays"
    assert not any(WRONG in text for text in shown[wrong + 1 :])


def use_chat_reloads_before_it_is_taken_back(chat: Chat) -> None:
    """The page that comes again has the wrong text at first, too, and loses it."""
    chat.open()
    chat.ask(BREAKS_OFF)
    chat.until_shown(WRONG.strip())
    chat.page.reload()
    chat.check()


def use_chat_outlives_its_worker(chat: Chat) -> None:
    """It is killed in the middle of a call; another one goes on."""
    chat.open()
    chat.ask()
    chat.until_shown(CALLS[0] + words(CALLS[1], 4))
    first = chat.process
    chat.stage.kill(first)
    chat.check()
    assert chat.process != first
    assert any(later < earlier for earlier, later in zip(chat.seen(), chat.seen()[1:], strict=False)), "it was reset"


def use_chat_outlives_the_server(chat: Chat) -> None:
    """A server that is killed, or stops: the page has an error, and no end; it resumes when loaded, or by a button."""
    for number, resume in ((signal.SIGKILL, "reload"), (signal.SIGTERM, "button")):
        chat.open(f"chat-{resume}")
        chat.ask(SLOWLY)
        chat.until_shown(words(TEXT, 3))
        chat.stage.end_server(number)
        chat.until("error")
        chat.stage.start_server()
        if resume == "reload":
            chat.page.reload()
        else:
            chat.page.get_by_role("button", name="Resume").click()
        chat.check()


def use_chat_stops(chat: Chat) -> None:
    """The workflow, and not only the page. What was shown stays; the next question is answered."""
    chat.open()
    chat.ask(SLOWLY)
    chat.until_shown(words(TEXT, 4))
    chat.page.get_by_role("button", name="Stop").click()
    chat.until("ready")
    assert words(TEXT, 4) in chat.answer, chat.answer
    assert TEXT.startswith(chat.answer)
    assert len(chat.answer) < len(TEXT)
    with chat.page.expect_response(lambda answer: answer.url.endswith("/stream")) as resumed:
        chat.page.reload()
    assert resumed.value.status == 204
    assert chat.answer == ""
    chat.ask("again")
    chat.until_shown(TEXT)
    chat.until("ready")
    assert chat.faults == []


SCENARIOS = [
    use_chat_streams,
    use_chat_reloads,
    use_chat_takes_back,
    use_chat_reloads_before_it_is_taken_back,
    use_chat_outlives_its_worker,
    use_chat_outlives_the_server,
    use_chat_stops,
]
