// A page with the AI SDK's useChat and nothing of ours: what an application would have. See bundle.py.
import { useChat } from "@ai-sdk/react"
import { DefaultChatTransport } from "ai"
import { createRoot } from "react-dom/client"

const id = location.hash.slice(1)
const transport = new DefaultChatTransport({ api: "/api/chat" })
const asked = JSON.parse(sessionStorage.getItem(id) ?? "[]") // an application has them in its database
window.seen = [] // each text of the answer that was shown

const textOf = (message) =>
  (message?.parts ?? []).map((part) => (part.type === "text" ? part.text : "")).join("")

function Page() {
  const { messages, sendMessage, resumeStream, status, error } = useChat({ id, transport, messages: asked, resume: true })
  const last = messages.at(-1)
  const answer = last?.role === "assistant" ? textOf(last) : ""
  if (answer !== window.seen.at(-1)) window.seen.push(answer)
  const mark = last?.parts.find((part) => part.type === "data-process")
  const questions = messages.filter((message) => message.role === "user")
  sessionStorage.setItem(id, JSON.stringify(questions.slice(-1)))

  const send = (event) => {
    event.preventDefault()
    sendMessage({ text: new FormData(event.target).get("text") })
    event.target.reset()
  }
  return (
    <main>
      <p id="roles">{messages.map((message) => message.role).join(" ")}</p>
      <p id="answer">{answer}</p>
      <p id="process">{mark?.data}</p>
      <p id="status">{status}</p>
      <p id="error">{error?.message}</p>
      <form onSubmit={send}>
        <input name="text" aria-label="Question" />
        <button>Send</button>
      </form>
      <button onClick={() => fetch(`/api/chat/${id}/stop`, { method: "POST" })}>Stop</button>
      <button onClick={() => resumeStream()}>Resume</button>
    </main>
  )
}

createRoot(document.getElementById("root")).render(<Page />)
