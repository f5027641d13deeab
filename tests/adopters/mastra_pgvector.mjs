// Mastra's PgVector as a program of its own: a job on stdin, its answer on stdout, as job.py has it.
import { PgVector } from "@mastra/pg";

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const job = JSON.parse(Buffer.concat(chunks).toString());
const store = new PgVector({ id: "adopted", connectionString: job.url });

let answer;
if (job.do === "write") {
  await store.createIndex({ indexName: job.collection, dimension: job.dimension, metric: "cosine" });
  answer = await store.upsert({
    indexName: job.collection,
    vectors: job.records.map((record) => record.vector),
    ids: job.records.map((record) => record.id),
    metadata: job.records.map((record) => ({ ...record.metadata, text: record.text })),
  });
} else {
  const found = await store.query({
    indexName: job.collection,
    queryVector: job.vector,
    topK: job.limit,
    filter: { [job.owner_field]: job.owner },
  });
  answer = found.map(({ id, metadata }) => ({ id, text: metadata.text, metadata }));
}
await store.disconnect();
process.stdout.write(JSON.stringify(answer));
