export * from './domain-error.js';
export * from './grpc-status.js';
export * from './http-status.js';
