// Lists a lab's models, then asks one of them: a whole answer, and a streamed one.
//
// It needs what `make env` prints. The certificate names the lab and not an address, so the client
// connects to the address, asks for the lab's name, and trusts the lab's own authority alone.
// Node reads neither SSL_CERT_FILE nor the name from the environment: both go into an agent.

import { readFileSync } from "node:fs";
import OpenAI from "openai";
import { Agent, fetch } from "undici";

const { LAB_CA_FILE, LAB_TLS_NAME, OPENAI_BASE_URL, OPENAI_API_KEY } = process.env;
if (!LAB_CA_FILE || !LAB_TLS_NAME || !OPENAI_BASE_URL || !OPENAI_API_KEY) {
  console.error('No lab in the environment. What to do: eval "$(make -s env)"');
  process.exit(1);
}

const agent = new Agent({
  connect: { ca: readFileSync(LAB_CA_FILE), servername: LAB_TLS_NAME },
});
// The agent and fetch come from one undici: an agent of another release than Node's own may fail.
const client = new OpenAI({ fetch, fetchOptions: { dispatcher: agent } });

const models = [];
for await (const model of client.models.list()) {
  models.push(model.id);
}
console.log(`Models: ${models.join(", ")}`);

const question = {
  model: process.argv[2] ?? models[0],
  messages: [{ role: "user", content: "What is a gateway? One sentence." }],
};

const whole = await client.chat.completions.create(question);
console.log(`${question.model}: ${whole.choices[0].message.content}`);

process.stdout.write(`${question.model}, streamed: `);
for await (const chunk of await client.chat.completions.create({ ...question, stream: true })) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}
console.log();

await agent.close();
