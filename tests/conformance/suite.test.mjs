import { runConformanceTests } from "@durable-streams/server-conformance-tests"

runConformanceTests({
  baseUrl: process.env.DBOSFLOW_URL,
  longPollTimeoutMs: Number(process.env.DBOSFLOW_PATIENCE_MS) + 1000,
})
