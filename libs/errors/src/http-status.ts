import type { ErrorCode } from './domain-error.js';

/** HTTP status of each code, as Docker's API answers it (moby `errdefs` mapping) and as RFC 9110 reads. */
export const HTTP_STATUS: Readonly<Record<ErrorCode, number>> = {
  InvalidArgument: 400,
  Unauthenticated: 401,
  PermissionDenied: 403,
  NotFound: 404,
  Conflict: 409,
  NotModified: 304,
  FailedPrecondition: 409,
  ResourceExhausted: 507,
  Unimplemented: 501,
  Unavailable: 503,
  DeadlineExceeded: 504,
  Cancelled: 499,
  DataLoss: 500,
  Internal: 500,
};
