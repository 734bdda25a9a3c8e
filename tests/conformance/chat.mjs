// A chat of the AI SDK, as a page has it: node chat.mjs URL. Prints what two tabs have in the end, and after a stop.
import { AbstractChat, DefaultChatTransport } from "ai"

class State {
  status = "ready"
  error = undefined
  messages = []
  pushMessage = (message) => (this.messages = this.messages.concat(message))
  popMessage = () => (this.messages = this.messages.slice(0, -1))
  replaceMessage = (index, message) => {
    this.messages = [...this.messages.slice(0, index), this.snapshot(message), ...this.messages.slice(index + 1)]
    this.onChange?.(message)
  }
  snapshot = (value) => structuredClone(value)
}

class Chat extends AbstractChat {
  constructor(id) {
    super({ id, state: new State(), transport: new DefaultChatTransport({ api: `${process.argv[2]}/api/chat` }) })
  }
}

const textOf = (message) =>
  (message?.parts ?? []).filter((part) => part.type === "text").map((part) => part.text).join("")
const answerOf = (chat) => textOf(chat.messages.findLast((message) => message.role === "assistant"))

const tab = new Chat("chat-1")
const reloaded = new Chat("chat-1")
let resuming
const seen = new Set()
tab.state.onChange = (message) => {
  seen.add(textOf(message))
  resuming ??= reloaded.resumeStream()
}
await tab.sendMessage({ text: "flaky" })
await resuming
console.log(JSON.stringify({ seen: [...seen], tab: answerOf(tab), reloaded: answerOf(reloaded), status: tab.status }))

await reloaded.resumeStream() // nothing is under way
const stopped = new Chat("chat-2")
let stopping
stopped.state.onChange = () => {
  stopping ??= fetch(`${process.argv[2]}/api/chat/chat-2/stop`, { method: "POST" })
}
await stopped.sendMessage({ text: "wait" })
await stopping
console.log(JSON.stringify({ tab: answerOf(stopped), status: stopped.status, again: answerOf(reloaded) }))
