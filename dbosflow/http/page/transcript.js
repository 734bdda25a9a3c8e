// What is on the page of a stream: a node for each frame that shows, by its offset, so that a rollback can take it back.

const TAKEN_BACK = matchMedia("(prefers-reduced-motion: reduce)").matches ? 400 : 1600; // ms that one sees it happen

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

export class Transcript {
  #log;
  #nodes = new Map(); // of words and process marks, by offset
  #turn = null; // the last one on the page

  constructor(log) {
    this.#log = log;
  }

  get turn() {
    return this.#turn;
  }

  get isAnswering() {
    return this.#turn !== null && !this.#turn.over;
  }

  clear() {
    this.#log.replaceChildren();
    this.#nodes.clear();
    this.#turn = null;
  }

  // A question that the stream does not have yet. It goes when the stream has it.
  expect(text) {
    this.forget();
    const asked = element("p", "question pending", text);
    asked.append(element("span", "small", "sending…"));
    this.#log.append(asked);
  }

  forget() {
    this.#log.querySelector(".pending")?.remove();
  }

  // One value of the stream, which came at `offset`.
  add(offset, value) {
    if (typeof value === "string") this.#word(offset, value);
    else if (value.type === "question") this.#question(value);
    else if (value.type === "piece") this.#piece(offset, value);
    else if (value.type === "end") this.#end(value);
  }

  #question(value) {
    this.forget();
    const article = element("article", "turn");
    const asked = element("p", "question", value.text);
    const answer = element("div", "answer");
    const text = element("div", "text");
    text.setAttribute("aria-busy", "true");
    const facts = element("p", "facts small");
    answer.append(text, facts);
    article.append(asked, answer);
    article.setAttribute("aria-label", `Question ${value.turn + 1} and its answer`);
    this.#log.append(article);
    this.#turn = { number: value.turn, text, facts, process: null, over: false, marks: 0 };
  }

  #piece(offset, value) {
    const turn = this.#turn;
    if (!turn) return;
    const nodes = [];
    if (value.paragraph || !turn.text.lastElementChild) {
      const paragraph = element("p");
      turn.text.append(paragraph);
      nodes.push(paragraph);
    }
    if (turn.process !== value.process) {
      const mark = element("span", "process", `process ${value.process}`);
      turn.facts.append(turn.marks ? element("span", "arrow", " → ") : element("span", "", "written by "), mark);
      turn.marks += 1;
      turn.process = value.process;
    }
    this.#nodes.set(offset, nodes);
  }

  #word(offset, word) {
    const paragraphs = this.#turn?.text.querySelectorAll(":scope > p:not(.taken-back)");
    const last = paragraphs?.[paragraphs.length - 1];
    if (!last) return;
    const node = element("span", "word", word);
    last.append(node);
    this.#nodes.set(offset, [node]);
  }

  #end(value) {
    const turn = this.#turn;
    if (!turn) return;
    turn.over = true;
    turn.text.setAttribute("aria-busy", "false");
    turn.facts.append(element("span", value.stopped ? "stopped" : "done", value.stopped ? " · stopped" : " · complete"));
  }

  // The values in these ranges no longer count. Returns the number of words that go.
  takeBack(ranges) {
    let words = 0;
    for (const [first, stop] of ranges) {
      for (let offset = first; offset < stop; offset += 1) {
        for (const node of this.#nodes.get(offset) ?? []) {
          words += node.classList.contains("word");
          node.classList.add("taken-back");
          node.setAttribute("aria-hidden", "true");
          setTimeout(() => node.remove(), TAKEN_BACK);
        }
        this.#nodes.delete(offset);
      }
    }
    if (words && this.#turn) {
      const note = element("p", "note", `${words} ${words === 1 ? "word" : "words"} taken back: the model call that wrote them did not come to its end`);
      this.#turn.text.after(note);
      setTimeout(() => note.remove(), 3 * TAKEN_BACK);
    }
    return words;
  }

  // The stream has ended, or this chat has.
  finish(text) {
    this.#log.append(element("p", "note", text));
  }
}
