import { asDomainError } from '@gantry/errors';
import type { FastifyReply } from 'fastify';

/**
 * Docker's streams of JSON lines. What fails before the first line is a real status (the error is thrown on); what fails later is the
 * last line, as the status has been sent.
 */
export async function sendJsonLines(reply: FastifyReply, lines: AsyncIterable<unknown>): Promise<void> {
  const iterator = lines[Symbol.asyncIterator]();
  let step = await iterator.next();
  reply.hijack();
  reply.raw.writeHead(200, { 'Content-Type': 'application/json' });
  try {
    while (!step.done) {
      if (!reply.raw.write(`${JSON.stringify(step.value)}\r\n`))
        await new Promise<void>((resolve) => reply.raw.once('drain', resolve).once('close', resolve));
      step = await iterator.next();
    }
  } catch (error) {
    const { message } = asDomainError(error);
    reply.raw.write(`${JSON.stringify({ errorDetail: { message }, error: message })}\r\n`);
  }
  reply.raw.end();
}
