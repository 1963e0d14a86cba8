import {
  asDomainError,
  codeOfGrpcStatus,
  DomainError,
  GRPC_STATUS,
  isErrorCode,
  type ErrorDetails,
} from '@gantry/errors';
import { ClientError, Metadata, ServerError } from 'nice-grpc-common';

/** Trailer that carries the domain code and details; gRPC's own status numbers are coarser than our codes. */
const TRAILER = 'gantry-error-bin';

/** Domain error → gRPC status with the details in a trailer. */
export function toServerError(error: unknown, trailer: Metadata): ServerError {
  const domain = asDomainError(error);
  trailer.set(TRAILER, Buffer.from(JSON.stringify({ code: domain.code, details: domain.details })));
  return new ServerError(GRPC_STATUS[domain.code], domain.message);
}

/** gRPC status → the domain error the other side threw. `service` names who did not answer. */
export function fromClientError(error: ClientError, trailer: Metadata | undefined, service: string): DomainError {
  const packed = trailer?.get(TRAILER);
  if (packed) {
    const { code, details } = JSON.parse(Buffer.from(packed).toString()) as { code: string; details: ErrorDetails };
    if (isErrorCode(code)) return new DomainError(code, error.details, details, { cause: error });
  }
  const code = codeOfGrpcStatus(error.code);
  const message = code === 'Unavailable' ? `the ${service} service does not answer: ${error.details}` : error.details;
  return new DomainError(code, message, { service }, { cause: error });
}
