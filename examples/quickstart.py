"""The README's quickstart. Run it as often as you like, and kill it as often as you like."""

import time

from dbosflow import Engine, step, workflow, write_stream


@step(max_attempts=3)
def sentence(topic: str, number: int) -> str:
    time.sleep(0.5)  # a language model, a payment, a slow website: what you would not want to do twice
    return f"This is sentence {number} about {topic}."


@workflow
def report(topic: str, sentences: int) -> int:
    words = 0
    for number in range(1, sentences + 1):
        for word in sentence(topic, number).split():
            write_stream("words", word)
            words += 1
    return words


def main() -> None:
    with Engine() as engine:
        handle = engine.start(report.options(workflow_id="report-1"), "durable execution", sentences=8)
        for word in engine.read_stream(handle.workflow_id, "words"):
            print(word, end="\n" if word.endswith(".") else " ", flush=True)
        print(handle.result(), "words")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\nStopped. Start it again, and it goes on.")
