import { request } from 'node:http';
import { pipeline } from 'node:stream/promises';
import type { Readable } from 'node:stream';
import { All, Controller, Inject, Req, Res } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Clients } from '../clients/clients.module.js';

/** `/v2/…` goes to the registry as it comes: method, headers and bytes untouched. */
@Controller()
export class RegistryDoorController {
  constructor(@Inject(Clients) private readonly clients: Clients) {}

  @All(['v2', 'v2/*'])
  async pass(@Req() incoming: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    reply.hijack();
    const { raw } = incoming;
    const call = request({
      socketPath: this.clients.httpSocket('registry'),
      method: raw.method,
      path: raw.url,
      headers: raw.headers,
    });
    call.on('response', (response) => {
      reply.raw.writeHead(response.statusCode ?? 502, response.headers);
      pipeline(response, reply.raw).catch(() => reply.raw.destroy());
    });
    call.on('error', () => {
      if (!reply.raw.headersSent) reply.raw.writeHead(502).end();
      else reply.raw.destroy();
    });
    raw.socket.once('close', () => call.destroy());
    const body = incoming.body;
    // JSON (an image index, say) has been parsed on its way in; its bytes matter, so the parser keeps them.
    if (typeof body === 'string' || Buffer.isBuffer(body)) call.end(body);
    else await pipeline((body as Readable | undefined) ?? raw, call).catch(() => call.destroy());
  }
}
