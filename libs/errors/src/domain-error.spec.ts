import { describe, expect, it } from 'vitest';
import { asDomainError, Conflict, ERROR_CODES, NotFound } from './domain-error.js';
import { codeOfGrpcStatus, GRPC_STATUS } from './grpc-status.js';

describe('domain errors', () => {
  it("names a missing container in Docker's words", () => {
    expect(new NotFound('container', 'web').message).toBe('No such container: web');
    expect(new NotFound('build', '7').message).toBe('build 7 not found');
  });

  it('keeps a domain error and wraps anything else with its cause', () => {
    const conflict = new Conflict('taken');
    expect(asDomainError(conflict)).toBe(conflict);
    const cause = new TypeError('x is undefined');
    expect(asDomainError(cause)).toMatchObject({ code: 'Internal', message: 'x is undefined', cause });
  });

  it.each(ERROR_CODES)('finds %s again from its gRPC status', (code) => {
    expect(codeOfGrpcStatus(GRPC_STATUS[code])).toBe(code);
  });

  it('takes a foreign gRPC status for an internal error', () => {
    expect(codeOfGrpcStatus(2)).toBe('Internal');
  });
});
