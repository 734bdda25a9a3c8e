// Reads a stream with the official client, and prints what it got: node client.mjs URL COUNT
import { stream } from "@durable-streams/client"

for (const live of ["long-poll", "sse"]) {
  const response = await stream({ url: process.argv[2], offset: "-1", live })
  const items = []
  for await (const item of response.jsonStream()) {
    items.push(item)
    if (items.length === Number(process.argv[3])) break
  }
  console.log(JSON.stringify(items))
}
