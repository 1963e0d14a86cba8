import { isAbortError } from 'abort-controller-x';
import { DomainError } from '@gantry/errors';
import { createServer, type CallContext, type Server, type ServerMiddlewareCall } from 'nice-grpc';
import type { ServerMiddleware } from 'nice-grpc-common';
import { HealthDefinition, HealthServiceImpl, HealthState } from 'nice-grpc-server-health';
import type { Logger } from '../logging/logger.js';
import { TRACEPARENT, traceFrom, withTrace } from '../tracing/trace.js';
import { parseAddress, prepareUnixSocket, toGrpcTarget } from '../lifecycle/listen-address.js';
import { toServerError } from './error-metadata.js';
import type { GrpcDefinition } from './grpc-service.decorator.js';

/** Whole messages stay small (bulk goes over HTTP); lists of thousands of containers still fit. */
export const MAX_MESSAGE_BYTES = 64 * 1024 * 1024;
const SHUTDOWN_GRACE_MS = 3_000;

/** The gRPC doors of a service: traces, error mapping, health, unix sockets and TCP. Owner: the service's lifecycle. */
export class GrpcServer {
  readonly #services: { definition: GrpcDefinition; implementation: object }[] = [];
  readonly #servers: Server[] = [];
  readonly #health = HealthState();

  constructor(private readonly logger: Logger) {}

  add(definition: GrpcDefinition, implementation: object): void {
    this.#services.push({ definition, implementation });
  }

  /** Opens a door at `unix:///path` or `tcp://host:port` and reports healthy. Resolves with the port (0 for a unix socket). */
  async listen(address: string): Promise<number> {
    await prepareUnixSocket(address);
    const server = this.#createServer();
    this.#servers.push(server);
    const port = await server.listen(toGrpcTarget(address));
    this.#health.setStatus('healthy');
    return 'path' in parseAddress(address) ? 0 : port;
  }

  /** Refuses new calls, lets running ones finish within a grace time, then cancels them. */
  async close(): Promise<void> {
    this.#health.setStatus('unhealthy');
    await Promise.all(
      this.#servers.map((server) => {
        const force = setTimeout(() => server.forceShutdown(), SHUTDOWN_GRACE_MS);
        return server.shutdown().finally(() => clearTimeout(force));
      }),
    );
  }

  /** nice-grpc's server has one door, so each address gets a server of its own over the same services. */
  #createServer(): Server {
    const server = createServer({
      'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
      'grpc.max_send_message_length': MAX_MESSAGE_BYTES,
      'grpc.keepalive_time_ms': 60_000,
      'grpc.http2.min_ping_interval_without_data_ms': 10_000,
    })
      .use(traceMiddleware)
      .use(this.#errorMiddleware());
    server.add(HealthDefinition, HealthServiceImpl(this.#health));
    for (const { definition, implementation } of this.#services) server.add(definition, implementation);
    return server;
  }

  #errorMiddleware(): ServerMiddleware {
    const { logger } = this;
    return async function* mapErrors<Request, Response>(
      call: ServerMiddlewareCall<Request, Response>,
      context: CallContext,
    ) {
      try {
        return yield* call.next(call.request, context);
      } catch (error) {
        if (isAbortError(error)) throw error;
        if (!(error instanceof DomainError) || error.code === 'Internal') {
          logger.error({ err: error, method: call.method.path }, 'call failed');
        }
        throw toServerError(error, context.trailer);
      }
    };
  }
}

async function* traceMiddleware<Request, Response>(
  call: ServerMiddlewareCall<Request, Response>,
  context: CallContext,
) {
  const trace = traceFrom(context.metadata.get(TRACEPARENT));
  const iterator = withTrace(trace, () => call.next(call.request, context));
  // The generator's body runs inside next(), so every step has to run under the trace.
  for (;;) {
    const step = await withTrace(trace, () => iterator.next());
    if (step.done) return step.value;
    yield step.value;
  }
}
