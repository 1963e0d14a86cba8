/**
 * What went wrong, in the platform's own words. Each border (gRPC, Docker, OCI distribution, platform API) maps a code
 * to its own status once; nothing behind the border knows about HTTP.
 */
export const ERROR_CODES = [
  'InvalidArgument',
  'Unauthenticated',
  'PermissionDenied',
  'NotFound',
  'Conflict',
  'NotModified',
  'FailedPrecondition',
  'ResourceExhausted',
  'Unimplemented',
  'Unavailable',
  'DeadlineExceeded',
  'Cancelled',
  'DataLoss',
  'Internal',
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

/** Facts for programs: what the caller may branch on without reading the message (`{ kind: 'container', exitCode: '127' }`). */
export type ErrorDetails = Readonly<Record<string, string>>;

/** Every error the platform throws on purpose. The message names the culprit and is fit to be shown to a person. */
export class DomainError extends Error {
  constructor(
    readonly code: ErrorCode,
    message: string,
    readonly details: ErrorDetails = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** The caller's input is wrong whatever the state of the system. */
export class InvalidArgument extends DomainError {
  constructor(message: string, details?: ErrorDetails, options?: ErrorOptions) {
    super('InvalidArgument', message, details, options);
  }
}

/** The words Docker uses for a missing object; tools match on them. */
const MISSING: Readonly<Record<string, (id: string) => string>> = {
  container: (id) => `No such container: ${id}`,
  image: (id) => `No such image: ${id}`,
  exec: (id) => `No such exec instance: ${id}`,
  network: (id) => `network ${id} not found`,
  volume: (id) => `get ${id}: no such volume`,
};

/** The object named does not exist. */
export class NotFound extends DomainError {
  constructor(
    readonly kind: string,
    readonly id: string,
    message?: string,
    options?: ErrorOptions,
  ) {
    super('NotFound', message ?? MISSING[kind]?.(id) ?? `${kind} ${id} not found`, { kind, id }, options);
  }
}

/** The request is fine, but the state of the system forbids it: a taken name, an object in use. */
export class Conflict extends DomainError {
  constructor(message: string, details?: ErrorDetails, options?: ErrorOptions) {
    super('Conflict', message, details, options);
  }
}

/** What was asked for is the case already (start of a running container). Docker answers 304. */
export class NotModified extends DomainError {
  constructor(message: string, details?: ErrorDetails) {
    super('NotModified', message, details);
  }
}

export class Unauthenticated extends DomainError {
  constructor(message: string, details?: ErrorDetails) {
    super('Unauthenticated', message, details);
  }
}

export class PermissionDenied extends DomainError {
  constructor(message: string, details?: ErrorDetails) {
    super('PermissionDenied', message, details);
  }
}

/** The system is not in the state the operation needs, and the caller can change that. */
export class FailedPrecondition extends DomainError {
  constructor(message: string, details?: ErrorDetails, options?: ErrorOptions) {
    super('FailedPrecondition', message, details, options);
  }
}

/** A pool, a quota or a disk is full. */
export class ResourceExhausted extends DomainError {
  constructor(message: string, details?: ErrorDetails, options?: ErrorOptions) {
    super('ResourceExhausted', message, details, options);
  }
}

/** Something this depends on does not answer now; the same call may succeed later. */
export class Unavailable extends DomainError {
  constructor(message: string, details?: ErrorDetails, options?: ErrorOptions) {
    super('Unavailable', message, details, options);
  }
}

export class DeadlineExceeded extends DomainError {
  constructor(message: string, details?: ErrorDetails, options?: ErrorOptions) {
    super('DeadlineExceeded', message, details, options);
  }
}

export class Cancelled extends DomainError {
  constructor(message: string, details?: ErrorDetails, options?: ErrorOptions) {
    super('Cancelled', message, details, options);
  }
}

export class Unimplemented extends DomainError {
  constructor(message: string, details?: ErrorDetails) {
    super('Unimplemented', message, details);
  }
}

/** Bytes are not what their digest says. */
export class DataLoss extends DomainError {
  constructor(message: string, details?: ErrorDetails, options?: ErrorOptions) {
    super('DataLoss', message, details, options);
  }
}

/** A fault of ours or of the host. Carries what failed, never a stack, in its message. */
export class Internal extends DomainError {
  constructor(message: string, details?: ErrorDetails, options?: ErrorOptions) {
    super('Internal', message, details, options);
  }
}

/** True for a code from the wire that is one of ours. */
export function isErrorCode(value: string): value is ErrorCode {
  return (ERROR_CODES as readonly string[]).includes(value);
}

/** The error as a domain error; whatever is not one becomes `Internal` with the original as its cause. */
export function asDomainError(error: unknown): DomainError {
  if (error instanceof DomainError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new Internal(message, {}, { cause: error });
}
