"""The scenarios, run by ``python -m tests.browser`` where Playwright is: of the demo's page, and of ``useChat``."""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import sync_playwright

from dbosflow.cli.demo import chat
from dbosflow.cli.demo.web import worker_command
from dbosflow.cli.program import dbosflow_command
from tests.browser.stage import PATIENCE, Programs, Stage, stage
from tests.browser.use_chat import flows, scenarios

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, BrowserContext, Page

PACE = 40.0
"""Words a second: an answer takes some seconds, in which something can happen."""
DEMO = Programs(worker_command("dbosflow"), "tests.browser.server", [str(PACE)])
_TEXT = """paragraphs => paragraphs.map(one => [...one.querySelectorAll('.word:not(.taken-back)')]
    .map(word => word.textContent).join('')).filter(text => text).join('\\n')"""


class Visitor:
    """A page in a browser of its own, and what one does there."""

    def __init__(self, context: BrowserContext, stage: Stage) -> None:
        self.context = context
        self.stage = stage
        self.page: Page = context.new_page()
        self.faults: list[str] = []
        self.foreign: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", self._on_request)
        self.page.set_default_timeout(PATIENCE * 1000)

    def _on_request(self, request: Any) -> None:
        if not request.url.startswith(self.stage.url):
            self.foreign.append(request.url)

    def ask(self, text: str = "Tell me a story.") -> None:
        """Sends a question, by keyboard."""
        self.page.get_by_label("Your question").fill(text)
        self.page.keyboard.press("Enter")

    def begin(self) -> None:
        """Opens the page and asks; returns in the middle of the answer."""
        self.page.goto(self.stage.url)
        self.ask()
        self.until_words(8)

    def until_words(self, count: int, turn: int = 0) -> None:
        """Waits until an answer has so many words."""
        self.page.wait_for_function(
            "([turn, count]) => document.querySelectorAll(`.turn:nth-of-type(${turn}) .word:not(.taken-back)`).length"
            " >= count",
            arg=[turn + 1, count],
        )

    def until_over(self, turn: int = 0) -> None:
        """Waits until an answer is over, and nothing fades any more."""
        self.page.wait_for_selector(f".turn:nth-of-type({turn + 1}) :is(.done, .stopped)")
        self.page.wait_for_function("() => !document.querySelector('.taken-back, .note')")

    def text(self, turn: int = 0) -> str:
        """The text of an answer, as it is shown: a line for each paragraph."""
        found = self.page.eval_on_selector_all(f".turn:nth-of-type({turn + 1}) .text > p", _TEXT)
        return str(found)

    def process(self) -> int:
        """The worker that writes, as the page says, which waits for one while the answer goes on."""
        return int(self.page.wait_for_selector("#kill:enabled").get_attribute("data-process"))

    def check(self, turns: int = 1) -> None:
        """Claims that the answers are whole, that nothing failed, and that no other host was asked."""
        for turn in range(turns):
            self.until_over(turn)
            expected = "\n".join("".join(f"{word} " for word in words) for words in chat.answer_to(turn))
            assert self.text(turn) == expected, self.text(turn)
        assert self.page.locator(".turn").count() == turns
        assert self.faults == []
        assert self.foreign == []


def refresh(visitor: Visitor) -> None:
    """The page is loaded again in the middle, three times."""
    visitor.begin()
    for count in (10, 20, 40):
        visitor.until_words(count)
        visitor.page.reload()
    visitor.check()


def offline(visitor: Visitor) -> None:
    """The network goes, and comes back after more has been written; and once after all has."""
    visitor.begin()
    visitor.context.set_offline(offline=True)
    visitor.page.wait_for_selector("#connection[data-state=offline]")
    count = visitor.page.locator(".word").count()
    visitor.page.wait_for_timeout(1000)
    assert visitor.page.locator(".word").count() == count
    visitor.context.set_offline(offline=False)
    visitor.check()
    visitor.context.set_offline(offline=True)
    visitor.ask("And then?")  # is sent when the network is back
    visitor.page.wait_for_selector(".pending")
    visitor.context.set_offline(offline=False)
    visitor.check(turns=2)


def second_tab(visitor: Visitor) -> None:
    """Another tab shows the same, and asks on; both show both."""
    visitor.begin()
    with visitor.context.expect_page() as opened:
        visitor.page.get_by_role("link", name="Second tab").click()
    other = Visitor(visitor.context, visitor.stage)
    other.page.goto(opened.value.url)
    other.check()
    other.ask("And then?")
    other.check(turns=2)
    visitor.check(turns=2)


def killed_worker(visitor: Visitor) -> None:
    """The button kills the worker in the middle: what its call has written is taken back, and the other one goes on."""
    visitor.begin()
    visitor.until_words(20)
    first = visitor.process()
    visitor.page.get_by_role("button", name="Kill the worker").click()
    visitor.page.wait_for_selector(".arrow")
    assert visitor.process() != first
    visitor.stage.start_worker()
    visitor.check()


def broken_model(visitor: Visitor) -> None:
    """The model breaks off: the text is taken back before one's eyes, and comes again."""
    visitor.page.goto(visitor.stage.url)
    visitor.page.get_by_role("button", name="Let the model break off").click()
    visitor.ask()
    visitor.page.wait_for_selector(".word.taken-back")
    said = visitor.page.get_by_role("status").inner_text()
    assert "taken back" in said, said
    visitor.check()


def restarted_server(visitor: Visitor) -> None:
    """The server is killed, and once stopped in an orderly way, and comes back on its port."""
    visitor.begin()
    for number, count in ((signal.SIGKILL, 20), (signal.SIGTERM, 60)):
        visitor.until_words(count)
        visitor.stage.end_server(number)
        visitor.stage.start_server()
    visitor.check()


def everything(visitor: Visitor) -> None:
    """All of it within one answer."""
    visitor.begin()
    visitor.page.reload()
    visitor.until_words(15)
    visitor.stage.kill(visitor.process())
    visitor.context.set_offline(offline=True)
    visitor.stage.end_server(signal.SIGKILL)
    visitor.page.wait_for_timeout(300)
    visitor.stage.start_server()
    visitor.context.set_offline(offline=False)
    visitor.until_words(60)
    visitor.stage.kill(visitor.process())
    visitor.page.reload()
    visitor.check()


def stop(visitor: Visitor) -> None:
    """An answer is stopped by keyboard; what was written stays, also after a refresh; the next one is whole."""
    visitor.begin()
    visitor.page.get_by_role("button", name="Stop").focus()
    visitor.page.keyboard.press("Enter")
    visitor.until_over()
    before = visitor.text()
    whole = "".join(f"{word} " for words in chat.answer_to(0) for word in words)
    assert whole.startswith(before.replace("\n", "")), before
    assert len(before) < len(whole)
    visitor.page.reload()
    visitor.until_over()
    assert visitor.text() == before
    assert visitor.page.get_by_label("Your question").is_enabled()


def keyboard(visitor: Visitor) -> None:
    """All that can be done is reached by Tab, and has a name for a screen reader."""
    visitor.page.goto(visitor.stage.url)
    names = []
    for _ in range(7):
        visitor.page.keyboard.press("Tab")
        names.append(
            visitor.page.evaluate(
                "() => { const at = document.activeElement;"
                " return at.getAttribute('aria-label') || at.labels?.[0]?.textContent || at.textContent.trim() }"
            )
        )
    assert names == [
        "dbosflow: a new chat",
        "New chat",
        "Tell me a story.",
        "Tell me a story, with a model that breaks off.",
        "Let the model break off",
        "Your question",
        "Send",
    ], names
    assert visitor.page.get_by_role("log", name="Conversation").count() == 1
    visitor.page.get_by_role("button", name="Tell me a story.", exact=True).press("Enter")
    visitor.until_over()
    assert visitor.page.get_by_role("article", name="Question 1 and its answer").count() == 1
    assert visitor.page.get_by_role("status").inner_text() == "The answer is complete."
    visitor.check()


SCENARIOS = [
    refresh,
    offline,
    second_tab,
    killed_worker,
    broken_model,
    restarted_server,
    everything,
    stop,
    keyboard,
]


def screenshots(browser: Browser, found: Stage, directory: Path) -> None:
    """Takes pictures of the page in its states, light and dark, wide and narrow."""
    directory.mkdir(parents=True, exist_ok=True)
    for scheme, width, height in (("light", 1280, 800), ("dark", 390, 844)):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        visitor = Visitor(context, found)

        def shot(name: str, page: Any = visitor.page, scheme: str = scheme) -> None:
            page.screenshot(path=str(directory / f"{name}-{scheme}.png"))

        visitor.page.goto(found.url)
        shot("welcome")
        visitor.page.get_by_role("button", name="that breaks off").click()
        visitor.until_words(30)
        shot("answering")
        visitor.page.wait_for_selector(".word.taken-back")
        visitor.page.wait_for_timeout(250)
        shot("taken-back")
        visitor.until_over()
        shot("complete")
        context.close()


@contextmanager
def context_of(browser: Browser) -> Iterator[BrowserContext]:
    """A browser of its own."""
    context = browser.new_context()
    try:
        yield context
    finally:
        context.close()


def plays(use_chat: Path) -> list[tuple[Programs, Callable[..., Any], Callable[[Any], None]]]:
    """What there is to play: what runs behind the page, the visitor, and the scenario."""
    worker = [*dbosflow_command(), "worker", flows.__name__, "--queue", flows.QUEUE, "--until-eof"]
    other = Programs(worker, "tests.browser.use_chat.server", [str(use_chat)])
    return [
        *((DEMO, Visitor, scenario) for scenario in SCENARIOS),
        *((other, scenarios.Chat, scenario) for scenario in scenarios.SCENARIOS),
    ]


def main() -> int:
    """Plays the scenarios that the command line names, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser")
    parser.add_argument("chromium")
    parser.add_argument("use_chat", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--screenshots", type=Path)
    args = parser.parse_args()
    failed = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=args.chromium, args=["--no-sandbox"])
        chosen = [one for one in plays(args.use_chat) if not args.names or one[2].__name__ in args.names]
        for programs, visitor, scenario in chosen:
            began = time.monotonic()
            with stage(programs) as found, context_of(browser) as context:
                try:
                    scenario(visitor(context, found))
                except Exception:  # noqa: BLE001 (the next scenario is played all the same)
                    failed += 1
                    traceback.print_exc()
                    verdict = "FAILED"
                else:
                    verdict = "ok"
            print(f"{scenario.__name__}: {verdict} in {time.monotonic() - began:.1f} s", flush=True)
        if args.screenshots is not None:
            with stage(DEMO) as found:
                screenshots(browser, found, args.screenshots)
        browser.close()
    print(f"{len(chosen) - failed} of {len(chosen)} scenarios hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
