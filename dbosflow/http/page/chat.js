// The chat: one EventSource on one durable stream. All that is on the page follows from the stream's events, so a refresh,
// a second tab and a lost connection show the same. The only memory is the offset of the last event.

import { Transcript } from "/page/transcript.js";

const $ = (id) => document.getElementById(id);
const STREAM = "chat";
const AGAIN = [250, 500, 1000, 2000, 4000]; // ms until the next try

const transcript = new Transcript($("log"));
let chat = null; // the id of the workflow
let source = null;
let last = -1; // the offset of the last event
let failures = 0;
let timer = 0;
let ended = false;
let caughtUp = false;

// -- what the page says ----------------------------------------------------------------------------------------------

function say(text) {
  $("status").textContent = text;
}

function connection(state, text) {
  $("connection").dataset.state = state;
  $("connection").querySelector(".text").textContent = text;
}

function show() {
  const answering = transcript.isAnswering;
  const process = answering ? transcript.turn.process : null;
  $("welcome").hidden = chat !== null;
  $("second").hidden = chat === null;
  $("second").href = location.href;
  $("stop").hidden = !answering;
  $("send").hidden = answering;
  $("kill").disabled = process === null;
  $("kill").dataset.process = process ?? "";
  $("kill").querySelector(".pid").textContent = process === null ? "" : ` · ${process}`;
  $("text").disabled = ended;
}

function follow(change) {
  const page = document.documentElement;
  const near = page.scrollHeight - page.clientHeight - page.scrollTop < 120;
  change();
  if (near) page.scrollTop = page.scrollHeight;
}

// -- the stream ------------------------------------------------------------------------------------------------------

function connect() {
  disconnect();
  if (chat === null || ended) return;
  if (!navigator.onLine) {
    connection("offline", "offline");
    return;
  }
  connection("connecting", "connecting");
  const from = last < 0 ? "" : `?last-event-id=${last}`;
  source = new EventSource(`/workflows/${encodeURIComponent(chat)}/streams/${STREAM}${from}`);
  source.addEventListener("start", () => {
    failures = 0;
    connection("live", "live");
  });
  source.addEventListener("up-to-date", () => {
    caughtUp = true;
  });
  on("chunk", (offset, value) => {
    transcript.add(offset, value);
    if (value.type === "end" && caughtUp) say(value.stopped ? "The answer was stopped." : "The answer is complete.");
  });
  on("rollback", (_offset, { ranges }) => {
    const words = transcript.takeBack(ranges);
    if (words) say(`${words} ${words === 1 ? "word" : "words"} taken back. The answer goes on.`);
  });
  on("complete", () => end("This chat has ended."));
  on("cancelled", () => end("This chat was cancelled."));
  source.addEventListener("error", (event) => {
    if (event.data === undefined) lost();
    else if (Number(event.lastEventId) <= last) end("The server cannot read the rest of this chat."); // it has no id
  });
  on("error", () => end("This chat has failed."));
}

// Calls `handle(offset, data)` once for each frame, however often it comes.
function on(name, handle) {
  source.addEventListener(name, (event) => {
    if (event.data === undefined) return; // a lost connection, which has the name of an `error` frame
    const offset = Number(event.lastEventId);
    if (offset <= last) return;
    last = offset;
    follow(() => handle(offset, JSON.parse(event.data)));
    show();
  });
}

function lost() {
  connection(navigator.onLine ? "connecting" : "offline", navigator.onLine ? "connecting again" : "offline");
  if (source?.readyState !== EventSource.CLOSED) return; // the browser connects again by itself
  const pause = AGAIN[Math.min(failures, AGAIN.length - 1)];
  failures += 1;
  timer = setTimeout(connect, pause * (0.5 + Math.random() / 2));
}

function disconnect() {
  clearTimeout(timer);
  source?.close();
  source = null;
}

function end(text) {
  ended = true;
  disconnect();
  connection("idle", "ended");
  transcript.finish(text);
  show();
}

addEventListener("online", connect);
addEventListener("offline", () => {
  disconnect();
  connection("offline", "offline");
});

// -- what the user does ----------------------------------------------------------------------------------------------

// Sends until the server has it. Its key makes a question that is sent again the same question.
async function post(path, body, key) {
  for (let tries = 0; ; tries += 1) {
    try {
      const headers = { "Content-Type": "application/json", ...(key ? { "Idempotency-Key": key } : {}) };
      const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
      if (answer.status < 500) return answer;
    } catch {
      // no network, or no server
    }
    await new Promise((next) => {
      const waiting = setTimeout(next, AGAIN[Math.min(tries, AGAIN.length - 1)]);
      addEventListener("online", () => (clearTimeout(waiting), next()), { once: true });
    });
  }
}

async function ask(text, fails) {
  say("");
  follow(() => transcript.expect(text));
  $("welcome").hidden = true;
  if (chat === null) {
    const begun = await post("/chats", {}, key()); // its key makes one that is sent again the same chat
    if (!begun.ok) return refused(begun);
    chat = (await begun.json()).id;
    history.pushState(null, "", `#${chat}`);
    connect();
  }
  const asked = await post(`/chats/${encodeURIComponent(chat)}/questions`, { text, fails }, key());
  if (!asked.ok) refused(asked);
  show();
}

// A key that no other question has. (`randomUUID` is only there on pages that came by https, or from this machine.)
function key() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function refused(answer) {
  transcript.forget();
  say(`The server has refused that (${answer.status}).`);
}

function takeFails() {
  const fails = $("fails").getAttribute("aria-pressed") === "true";
  $("fails").setAttribute("aria-pressed", "false");
  return fails;
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || transcript.isAnswering) return;
  $("text").value = "";
  ask(text, takeFails());
});

$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("form").requestSubmit();
});

for (const button of document.querySelectorAll("[data-ask]")) {
  button.addEventListener("click", () => {
    ask(button.dataset.ask, "fails" in button.dataset);
    $("text").focus();
  });
}

$("fails").addEventListener("click", () => {
  const on = $("fails").getAttribute("aria-pressed") !== "true";
  $("fails").setAttribute("aria-pressed", String(on));
  say(on ? "The model will break off once in its next answer." : "");
});

$("stop").addEventListener("click", async () => {
  const { number } = transcript.turn;
  say("The answer stops at the end of its piece.");
  $("text").focus();
  await post(`/chats/${encodeURIComponent(chat)}/stop`, { turn: number });
});

$("kill").addEventListener("click", async () => {
  const { process } = $("kill").dataset;
  const answer = await post(`/processes/${process}/kill`, {});
  say(answer.ok ? `Process ${process} has got SIGKILL.` : `Process ${process} is gone already.`);
});

// -- which chat ------------------------------------------------------------------------------------------------------

function open() {
  disconnect();
  chat = location.hash.slice(1) || null;
  last = -1;
  failures = 0;
  ended = false;
  caughtUp = false;
  transcript.clear();
  connection("idle", "ready");
  show();
  connect();
}

addEventListener("popstate", open);
open();
