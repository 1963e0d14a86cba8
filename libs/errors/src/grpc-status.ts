import type { ErrorCode } from './domain-error.js';

/** gRPC status number of each code (grpc/doc/statuscodes.md). Distinct codes that share a number travel in metadata too. */
export const GRPC_STATUS: Readonly<Record<ErrorCode, number>> = {
  Cancelled: 1,
  InvalidArgument: 3,
  DeadlineExceeded: 4,
  NotFound: 5,
  Conflict: 6,
  PermissionDenied: 7,
  ResourceExhausted: 8,
  FailedPrecondition: 9,
  NotModified: 11,
  Unimplemented: 12,
  Internal: 13,
  Unavailable: 14,
  DataLoss: 15,
  Unauthenticated: 16,
};

/** The code behind a gRPC status number; what gRPC itself may send and we do not (UNKNOWN, ABORTED …) is `Internal`. */
export function codeOfGrpcStatus(status: number): ErrorCode {
  const found = Object.entries(GRPC_STATUS).find(([, number]) => number === status);
  return (found?.[0] as ErrorCode | undefined) ?? 'Internal';
}
