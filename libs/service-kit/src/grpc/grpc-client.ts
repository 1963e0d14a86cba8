import { Channel, ChannelCredentials, type ChannelOptions } from '@grpc/grpc-js';
import { createClientFactory, type CallOptions, type Client, type ClientMiddleware } from 'nice-grpc';
import { ClientError, type Metadata as MetadataType, Metadata } from 'nice-grpc-common';
import { deadlineMiddleware, type DeadlineOptions } from 'nice-grpc-client-middleware-deadline';
import { toGrpcTarget } from '../lifecycle/listen-address.js';
import { currentTrace, formatTrace, TRACEPARENT } from '../tracing/trace.js';
import { fromClientError } from './error-metadata.js';
import type { GrpcDefinition } from './grpc-service.decorator.js';
import { MAX_MESSAGE_BYTES } from './grpc-server.js';

/** A call without a deadline of its own may take this long. Streams have none unless the caller gives one. */
export const DEFAULT_DEADLINE_MS = 30_000;

/** What a caller may say of one call: `signal` cancels it, `deadline` (ms from now, or a date) bounds it. */
export type RpcOptions = CallOptions & DeadlineOptions;
export type RpcClient<Definition extends GrpcDefinition> = Client<Definition, DeadlineOptions>;

const CHANNEL_OPTIONS: ChannelOptions = {
  'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
  'grpc.max_send_message_length': MAX_MESSAGE_BYTES,
  'grpc.initial_reconnect_backoff_ms': 50,
  // A restarted service is found again at once, not after grpc's usual two minutes.
  'grpc.max_reconnect_backoff_ms': 500,
  'grpc.keepalive_time_ms': 60_000,
  // Unix sockets know no authority; without one grpc-js sends the path, which some servers refuse.
  'grpc.default_authority': 'localhost',
};

/** The connection to one other service, shared by the clients of its contracts. Owner: the module that made it. */
export class GrpcConnection {
  readonly #channel: Channel;

  constructor(
    address: string,
    private readonly service: string,
  ) {
    this.#channel = new Channel(toGrpcTarget(address), ChannelCredentials.createInsecure(), CHANNEL_OPTIONS);
  }

  /** A typed client; its errors are the domain errors that the other side threw. */
  client<Definition extends GrpcDefinition>(definition: Definition): RpcClient<Definition> {
    return (
      createClientFactory()
        // The last one is the outermost: errors of all the others are mapped too.
        .use(traceMiddleware)
        .use(deadlineMiddleware)
        .use(defaultDeadline)
        .use(errorMiddleware(this.service))
        .create<Definition>(definition, this.#channel)
    );
  }

  close(): void {
    this.#channel.close();
  }
}

function errorMiddleware(service: string): ClientMiddleware {
  return async function* mapErrors(call, options) {
    let trailer: MetadataType | undefined;
    try {
      return yield* call.next(call.request, {
        ...options,
        onTrailer: (received) => {
          trailer = received;
          options.onTrailer?.(received);
        },
      });
    } catch (error) {
      if (error instanceof ClientError) throw fromClientError(error, trailer, service);
      throw error;
    }
  };
}

const defaultDeadline: ClientMiddleware<DeadlineOptions> = async function* setDeadline(call, options) {
  const bounded =
    options.deadline === undefined && !call.requestStream && !call.responseStream
      ? { ...options, deadline: DEFAULT_DEADLINE_MS }
      : options;
  return yield* call.next(call.request, bounded);
};

const traceMiddleware: ClientMiddleware = async function* passTrace(call, options) {
  const trace = currentTrace();
  if (!trace) return yield* call.next(call.request, options);
  const metadata = Metadata(options.metadata).set(TRACEPARENT, formatTrace(trace));
  return yield* call.next(call.request, { ...options, metadata });
};
